"""Adam or AdamW with warm-up, cosine decay, clipping, and an average of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pipeline.mesh import flat_buffers, layouts
from pipeline.runtime import errors, registry
from pipeline.training.optimizer import parts
from pipeline.training.optimizer.rates import describe, learning_rate

__all__ = [
    "average_params", "describe", "evaluation_params", "learning_rate", "make", "make_for", "parts"
]  # fmt: skip


class AveragedParams(NamedTuple):
    """State of `average_params`: an exponential moving average of the parameters."""

    params: Any


def make(
    config: Any,
    *,
    grad_norm: Array | None = None,
    decayed: Array | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer that the section `optimizer` describes.

    If a device updates only a piece of a flat buffer, the arguments say what the piece does not
    show. The optimizer's state has the same form with and without them.

    Args:
        config: the section `optimizer`.
        grad_norm: norm of the whole gradient, scalar; None: that of the gradients passed.
        decayed: which values of the single array of parameters are decayed, bool [values]; None:
            those of all matrices.

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
    chain = [_clip(config.clip_norm, grad_norm)] if config.clip_norm else []
    chain.append(parts.adam(config))
    if config.name == "adamw":
        chain.append(_decay(config.weight_decay, decayed))
    if parts.own_rates(config):
        chain.append(parts.scaled(config))
    chain.append(optax.scale_by_learning_rate(learning_rate(config)))
    if config.ema_decay:
        chain.append(average_params(config.ema_decay))
    return optax.chain(*chain)


def make_for(gradients: Any, norm: Array, config: Any) -> optax.GradientTransformation:
    """Returns the optimizer for gradients as they lie on the mesh; `norm` is their global norm."""
    if not layouts.is_flat(gradients):
        return make(config)
    # A device updates its piece of one flat buffer, which shows neither the norm nor the shapes.
    return make(config, grad_norm=norm, decayed=flat_buffers.in_matrices(gradients))


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
