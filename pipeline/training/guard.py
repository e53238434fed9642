"""A guard against losses that are not finite or leap: it judges every step from its loss.

The decision: the judgement is made on the device, from a trend that is part of the state, so that a
resumed run, and every process, judges alike; the loop reads it a few steps late (`verdicts`), and
at once before a save, so that no checkpoint holds what a bad step left.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pipeline.mesh import layouts
from pipeline.runtime import errors, registry

ACTIONS = ("stop", "rollback", "off")
DECAY = 0.99  # of the trend: about the last 100 steps
WARMUP = 100  # steps before a leap can be told from noise
GOOD, NOT_FINITE, LEAP = 0.0, 1.0, 2.0
REASONS = {NOT_FINITE: "is not finite", LEAP: "has leapt"}


def check(section: Any) -> None:
    """Raises an InputError where a field of `config.guard` can't work."""
    registry.check(section.action, ACTIONS, field="guard.action")
    for name in ("leap_sigmas", "max_rollbacks"):
        errors.check_not_negative(f"config.guard.{name}", section[name])


def first_trend() -> Array:
    """Returns the trend before any step, [4]: moving sums of 1, loss and loss², and good steps."""
    return jnp.zeros(4, jnp.float32)


def judge(trend: Array, loss: Array, grad_norm: Array, section: Any) -> tuple[Array, Array]:
    """Returns the trend with this step in it if it was good, and the judgement of the step.

    A leap is a loss more than `leap_sigmas` standard deviations above the moving mean.

    Args:
        trend: [4] float32, of the steps before.
        loss: scalar, over the global batch.
        grad_norm: scalar.
        section: `config.guard`.

    Returns:
        The trend [4], and GOOD, NOT_FINITE or LEAP, float32 scalars.
    """
    weight, total, squares, steps = trend
    weight = jnp.maximum(weight, 1e-6)
    mean = total / weight
    deviation = jnp.sqrt(jnp.maximum(squares / weight - mean**2, 0.0))
    leap = jnp.zeros((), bool)
    if section.leap_sigmas:
        leap = (steps >= WARMUP) & (loss > mean + section.leap_sigmas * deviation)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    judgement = jnp.where(finite, jnp.where(leap, LEAP, GOOD), NOT_FINITE)
    moved = DECAY * trend[:3] + (1 - DECAY) * jnp.stack([jnp.ones_like(loss), loss, loss**2])
    moved = jnp.append(moved, steps + 1)
    return jnp.where(judgement == GOOD, moved, trend), judgement


def bad_leaves(params: Any, num: int = 3) -> str:
    """Returns the paths of the first arrays that are not finite, and how many there are."""

    @jax.jit
    def are_finite(params):
        return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), layouts.whole(params))

    finite = are_finite(params)
    bad = [path for path, ok in jax.tree.leaves_with_path(jax.device_get(finite)) if not ok]
    if not bad:
        return "all parameters are finite"
    shown = [jax.tree_util.keystr(path, simple=True, separator=".") for path in bad[:num]]
    dots = ", …" if bad[num:] else ""
    return f"{len(bad)} arrays of parameters are not finite: {', '.join(shown)}{dots}"
