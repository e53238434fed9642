"""A guard against losses that are not finite or that leap: it judges each step by its loss.

The device makes the judgement, from a trend that is part of the state. So every process, and a
resumed run, judges in the same way. The loop reads judgements a few steps late (`verdicts`), but
before a save it reads them all: no checkpoint holds the result of a bad step.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pipeline.mesh import layouts
from pipeline.runtime import errors, registry

ACTIONS = ("stop", "rollback", "off")
DECAY = 0.99  # of the trend, which thus covers about the last 100 steps
WARMUP = 100  # steps before a leap can be told from noise
GOOD, NOT_FINITE, LEAP = 0.0, 1.0, 2.0
REASONS = {NOT_FINITE: "is not finite", LEAP: "has leapt"}


def check(section: Any) -> None:
    """Raises an InputError if a field of `config.guard` cannot work."""
    registry.check(section.action, ACTIONS, field="guard.action")
    for name in ("leap_sigmas", "max_rollbacks"):
        errors.check_not_negative(f"config.guard.{name}", section[name])


def first_trend() -> Array:
    """Returns the trend of no steps, [4]: moving sums of 1, loss and loss²; count of good steps."""
    return jnp.zeros(4, jnp.float32)


def judge(trend: Array, loss: Array, grad_norm: Array, section: Any) -> tuple[Array, Array]:
    """Returns the trend, which includes this step only if it was good, and its judgement.

    A leap is a loss of more than `leap_sigmas` standard deviations above the moving mean.

    Args:
        trend: [4] float32, of the steps before this one.
        loss: scalar, over the global batch.
        grad_norm: scalar.
        section: `config.guard`.

    Returns:
        The trend, [4] float32, and GOOD, NOT_FINITE or LEAP as a float32 scalar.
    """
    weight, total, squares, steps = trend
    weight = jnp.maximum(weight, 1e-6)
    mean = total / weight
    deviation = jnp.sqrt(jnp.maximum(squares / weight - mean**2, 0.0))
    # Before WARMUP good steps the deviation says too little to judge by.
    leap = jnp.zeros((), bool)
    if section.leap_sigmas:
        leap = (steps >= WARMUP) & (loss > mean + section.leap_sigmas * deviation)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    judgement = jnp.where(finite, jnp.where(leap, LEAP, GOOD), NOT_FINITE)
    # A bad loss must not enter the trend: NaN would stay in it for good.
    moved = DECAY * trend[:3] + (1 - DECAY) * jnp.stack([jnp.ones_like(loss), loss, loss**2])
    moved = jnp.append(moved, steps + 1)
    return jnp.where(judgement == GOOD, moved, trend), judgement


def are_finite(params: Any) -> bool:
    """Says whether all parameters are finite; all processes must ask."""
    return not _bad_paths(params)


def bad_leaves(params: Any, num: int = 3) -> str:
    """Returns a text with the number of arrays that are not finite and the first `num` paths."""
    bad = _bad_paths(params)
    if not bad:
        return "all parameters are finite"
    shown = [jax.tree_util.keystr(path, simple=True, separator=".") for path in bad[:num]]
    dots = ", …" if bad[num:] else ""
    return f"{len(bad)} arrays of parameters are not finite: {', '.join(shown)}{dots}"


def _bad_paths(params: Any) -> list[Any]:
    @jax.jit
    def finite(params):
        return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), layouts.whole(params))

    found = jax.device_get(finite(params))
    return [path for path, ok in jax.tree.leaves_with_path(found) if not ok]
