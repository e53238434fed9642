"""Adam or AdamW with warm-up, cosine decay, clipping, and an average of the parameters."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pipeline.mesh import flat_buffers, layouts
from pipeline.runtime import errors, registry


class AveragedParams(NamedTuple):
    """State of `average_params`: an exponential moving average of the parameters."""

    params: Any


def learning_rate(config: Any) -> optax.Schedule:
    """Returns the learning rate at a step: linear warm-up from 0, then constant or cosine to 0.

    A run's `decay_steps` stay as they were at its first start. So a resumed run can be prolonged
    without a change to the schedule that it followed.

    Args:
        config: the section `optimizer`.

    Raises:
        InputError: the schedule is unknown, or a rate or a length is out of its range.
    """
    if not (math.isfinite(config.learning_rate) and config.learning_rate > 0):
        raise errors.InputError(
            f"config.optimizer.learning_rate={config.learning_rate} must be positive"
        )
    for name, own in _own_rates(config).items():
        if not (math.isfinite(own) and own > 0):
            raise errors.InputError(f"config.optimizer.own_rates.{name}={own} must be positive")
    errors.check_not_negative("config.optimizer.warmup_steps", config.warmup_steps)
    registry.check(config.schedule, ("constant", "cosine"), field="optimizer.schedule")
    after = optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        if config.decay_steps <= config.warmup_steps:
            raise errors.InputError(
                f"config.optimizer.decay_steps={config.decay_steps} must be above warmup_steps="
                f"{config.warmup_steps} for schedule='cosine': set the step at which the rate is 0"
            )
        after = optax.cosine_decay_schedule(
            config.learning_rate, config.decay_steps - config.warmup_steps
        )
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def describe(config: Any, total_steps: int) -> str:
    """Returns a text about the learning rate: its highest value, and where its changes end."""
    warmup = f"after a warm-up to step {config.warmup_steps:,}" if config.warmup_steps else ""
    own = "".join(f", {name}'s {rate:g}" for name, rate in _own_rates(config).items())
    if config.schedule == "constant":
        return f"constant at {config.learning_rate:g}{own} {warmup}".strip()
    text = f"{config.schedule} from {config.learning_rate:g}{own} {warmup}".strip()
    return f"{text} to 0, ends at step {config.decay_steps:,} of {total_steps:,}"


def check_parts(config: Any, params: Any) -> None:
    """Raises an InputError if a part with a rate of its own is none of the model's."""
    for name in _own_rates(config):
        registry.check(name, list(params), field="optimizer.own_rates")


def make(
    config: Any,
    *,
    grad_norm: Array | None = None,
    decayed: Array | None = None,
    factors: Array | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer that the section `optimizer` describes.

    A model's config may add a section `own_rates`: learning rates of parts of the model, by the
    names of its attributes. They follow the same warm-up and decay, in proportion.

    If a device updates only a piece of a flat buffer, the arguments say what the piece does not
    show. The optimizer's state has the same form with and without them.

    Args:
        config: the section `optimizer`.
        grad_norm: norm of the whole gradient, scalar; None: that of the gradients passed.
        decayed: which values of the single array of parameters are decayed, bool [values]; None:
            those of all matrices.
        factors: `rate_factors` of each value of that array, float32 [values].

    Raises:
        InputError: a name is unknown, or a value is out of its range.
    """
    registry.check(config.name, ("adam", "adamw"), field="optimizer.name")
    for field in ("clip_norm", "weight_decay"):
        errors.check_not_negative(
            f"config.optimizer.{field}", config[field], hint="; 0 switches it off"
        )
    if not 0 <= config.ema_decay < 1:
        raise errors.InputError(
            f"config.optimizer.ema_decay={config.ema_decay} must lie in [0, 1); 0 switches it off"
        )
    if config.weight_decay and config.name == "adam":
        raise errors.InputError(
            f"config.optimizer.weight_decay={config.weight_decay} needs config.optimizer.name="
            "'adamw'"
        )
    # The order matters: clipping sees the raw gradient, and the average sees the final update.
    parts = [_clip(config.clip_norm, grad_norm)] if config.clip_norm else []
    parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
    if config.name == "adamw":
        parts.append(_decay(config.weight_decay, decayed))
    if _own_rates(config):
        parts.append(_scale(config, factors))
    parts.append(optax.scale_by_learning_rate(learning_rate(config)))
    if config.ema_decay:
        parts.append(average_params(config.ema_decay))
    return optax.chain(*parts)


def make_for(gradients: Any, norm: Array, config: Any) -> optax.GradientTransformation:
    """Returns the optimizer for gradients as they lie on the mesh; `norm` is their global norm."""
    if not layouts.is_flat(gradients):
        return make(config)
    # A device updates its piece of one flat buffer, which shows neither the norm nor the shapes.
    return make(
        config,
        grad_norm=norm,
        decayed=flat_buffers.in_matrices(gradients),
        factors=flat_buffers.of_leaves(gradients, lambda tree: rate_factors(config, tree)),
    )


def rate_factors(config: Any, params: Any) -> Any:
    """Returns for each array of the parameters its learning rate over that of most."""
    own, rate = _own_rates(config), config.learning_rate
    part = lambda path: jax.tree_util.keystr(path[:1], simple=True)  # noqa: E731
    return jax.tree.map_with_path(lambda path, leaf: own.get(part(path), rate) / rate, params)


def average_params(decay: float) -> optax.GradientTransformation:
    """Keeps θ̄ ← decay·θ̄ + (1 − decay)·θ of the updated parameters; the updates pass unchanged.

    θ̄ starts at the initial parameters, so it needs no debiasing. This must end its chain.
    """

    def init(params):
        # A copy, because the state is donated and one buffer cannot be donated twice.
        return AveragedParams(jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.params, new)
        return updates, AveragedParams(average)

    return optax.GradientTransformation(init, update)


def evaluation_params(params: Any, opt_state: Any) -> Any:
    """Returns the averaged parameters if the optimizer keeps them, else `params`."""
    for part in opt_state:
        if isinstance(part, AveragedParams):
            return part.params
    return params


def _clip(max_norm: float, grad_norm: Array | None) -> optax.GradientTransformation:
    if grad_norm is None:
        return optax.clip_by_global_norm(max_norm)
    norm = grad_norm
    clipped = lambda g: jnp.where(norm < max_norm, g, g / norm * max_norm)  # noqa: E731
    return optax.stateless(lambda updates, params: jax.tree.map(clipped, updates))


def _decay(rate: float, decayed: Array | None) -> optax.GradientTransformation:
    if decayed is None:
        # Biases and scalars (a learned σ) are not decayed.
        return optax.add_decayed_weights(
            rate, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
        )
    every = lambda params: jax.tree.map(lambda leaf: True, params)  # noqa: E731
    return optax.add_decayed_weights(rate * decayed, mask=every)


def _own_rates(config: Any) -> dict[str, float]:
    """Returns the rates of parts that have their own; most configs lack this section."""
    return dict(config.get("own_rates", {}))


def _scale(config: Any, factors: Array | None) -> optax.GradientTransformation:
    """Adam's updates do not depend on the gradient's scale, so the updates are scaled after it."""
    one = lambda tree: jax.tree.map(lambda leaf: factors, tree)  # noqa: E731
    of = one if factors is not None else lambda tree: rate_factors(config, tree)
    return optax.stateless(lambda updates, params: jax.tree.map(jnp.multiply, updates, of(updates)))
