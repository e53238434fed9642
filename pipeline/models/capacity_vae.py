"""β-VAE with capacity control: reconstruction + γ·|KL − C|, C rising from 0 to C_max nats.

Burgess et al. 2018 (arXiv:1804.03599), eq. 8. The KL is summed over latents and averaged over the
global batch before the absolute value; `per_example` takes |KL − C| of every example instead.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import likelihoods, losses, metrics, networks, schedules
from pipeline.runtime import errors


def cautions(config: Any) -> list[str]:
    """Returns warnings for settings that work, but not as one would think."""
    clip, gamma = config.optimizer.clip_norm, config.model.gamma
    if not clip or gamma <= 1:
        return []
    return [
        f"config.optimizer.clip_norm={clip} with config.model.gamma={gamma}: the gradient of "
        "γ·|KL − C| fills the clipped norm and leaves the reconstruction little; set clip_norm=0"
    ]


class Terms(NamedTuple):
    """Per-example terms of the objective, nats."""

    reconstruction: Array  # [B], −log p(x|z), summed over pixels
    kl: Array  # [B], KL(q(z|x) ‖ N(0, 1)), summed over latents
    deviation: Array  # [B], |KL − C| of the example


class Model(nnx.Module):
    """Capacity-controlled VAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds encoder and decoder for one example of the data set.

        Args:
            config: the whole config; reads `model` and `compute_dtype`.
            example: abstract example, `image` of shape [H, W, C].
            rngs: the stream `params`.
        """
        self.shape = example["image"].shape
        self.latent_dim = config.model.latent_dim
        self.gamma = config.model.gamma
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise errors.InputError(f"config.model.gamma={self.gamma} must not be negative")
        self.per_example = config.model.per_example
        self.capacity = schedules.make(config.model.capacity, field="model.capacity")
        self.likelihood = likelihoods.Likelihood(config.model)
        self.encoder, self.decoder = networks.autoencoder(config, self.shape, rngs=rngs)

    def encode(self, image: Array) -> tuple[Array, Array]:
        """Returns mean and log-variance of q(z|x), [B, D] each, for images [B, H, W, C]."""
        return networks.gaussian(self.encoder(networks.unit_interval(image)))

    def decode(self, z: Array) -> Array:
        """Returns the expected images in [0, 1], [B, H, W, C], for latents [B, D]."""
        return self.likelihood.display(self.decoder(z))

    def posterior(self, batch: dict[str, Array]) -> tuple[Array, Array]:
        """Returns mean and log-variance of q(z|x) for a batch, [B, D] each."""
        return self.encode(batch["image"])

    def nll(self, z: Array, batch: dict[str, Array]) -> Array:
        """Returns −log p(x|z) of a batch, [B] nats, summed over pixels, for latents [B, D]."""
        return self.likelihood.nll(self.decoder(z), networks.unit_interval(batch["image"]))

    def reconstruct(self, batch: dict[str, Array]) -> Array:
        """Returns the images decoded from the posterior's means, [B, H, W, C] in [0, 1]."""
        return self.decode(self.encode(batch["image"])[0])

    def sample(self, keys: Array) -> Array:
        """Returns one image in [0, 1] for each key, decoded from z ~ N(0, 1)."""
        return self.decode(jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(keys))

    def terms(self, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, with one sample of z, and no sums."""
        mean, log_variance = self.posterior(batch)
        reconstruction = self.nll(losses.sample_normal(mean, log_variance, keys), batch)
        kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
        return Terms(reconstruction, kl, jnp.abs(kl - self.capacity(step))), {}

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z)] + γ·|KL − C(step)|, nats per example."""
        return means.reconstruction + self.capacity_loss(means, step=step)

    def capacity_loss(self, means: Terms, *, step: Array) -> Array:
        """Returns γ·|KL − C(step)|, of the mean KL or (`per_example`) the mean of the examples'."""
        if self.per_example:
            return self.gamma * means.deviation
        return self.gamma * jnp.abs(means.kl - self.capacity(step))

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns what is logged, from means over the global batch or data set."""
        del sums
        return {
            "reconstruction_loss": means.reconstruction,
            "kl_loss": means.kl,
            "capacity_loss": self.capacity_loss(means, step=step),
            "current_capacity": self.capacity(step),
            "capacity_error": jnp.abs(means.kl - self.capacity(step)),
            **self.likelihood.metrics(
                distortion=means.reconstruction, rate=means.kl, num_dims=math.prod(self.shape)
            ),
        }
