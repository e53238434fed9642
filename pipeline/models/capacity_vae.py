"""β-VAE with capacity control: reconstruction + γ·|KL − C|, as C rises from 0 to C_max nats.

Burgess et al. 2018 (arXiv:1804.03599), eq. 8. The KL is summed over latents and averaged over the
global batch before the absolute value. With `per_example`, |KL − C| is averaged over examples.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import gaussian_vae, metrics, schedules
from pipeline.runtime import errors


class Terms(NamedTuple):
    """Per-example terms of the objective in nats; the first two as in `gaussian_vae.Terms`."""

    reconstruction: Array  # [B]
    kl: Array  # [B]
    deviation: Array  # [B], |KL − C| of the example


class Model(gaussian_vae.GaussianVAE):
    """Capacity-controlled VAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Reads `gamma`, `per_example` and `capacity`; builds the networks of `GaussianVAE`."""
        self.gamma, self.per_example = config.model.gamma, config.model.per_example
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise errors.InputError(f"config.model.gamma={self.gamma} must not be negative")
        self.capacity = schedules.make(config.model.capacity, field="model.capacity")
        super().__init__(config, example, rngs=rngs)

    def terms(self, batch: gaussian_vae.Batch, *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, from one sample of z each, and no sums."""
        (reconstruction, kl), sums = super().terms(batch, keys=keys, step=step)
        return Terms(reconstruction, kl, jnp.abs(kl - self.capacity(step))), sums

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z)] + γ·|KL − C(step)|, nats per example."""
        return means.reconstruction + self.capacity_loss(means, step=step)

    def capacity_loss(self, means: Terms, *, step: Array) -> Array:
        """Returns γ·|KL − C(step)| of the mean KL; with `per_example`, the mean over examples."""
        if self.per_example:
            return self.gamma * means.deviation
        return self.gamma * jnp.abs(means.kl - self.capacity(step))

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        capacity = self.capacity(step)
        return super().metrics(means, sums, step=step) | {
            "capacity_loss": self.capacity_loss(means, step=step),
            "current_capacity": capacity,
            "capacity_error": jnp.abs(means.kl - capacity),
        }


def cautions(config: Any) -> list[str]:
    """Returns warnings about settings that run but have an unexpected effect."""
    clip, gamma = config.optimizer.clip_norm, config.model.gamma
    if not clip or gamma <= 1:
        return []
    return [
        f"config.optimizer.clip_norm={clip} with config.model.gamma={gamma}: the gradient of "
        "γ·|KL − C| fills the clipped norm and leaves the reconstruction little; set clip_norm=0"
    ]
