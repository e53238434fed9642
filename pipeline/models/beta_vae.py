"""β-VAE: reconstruction + β·KL (Higgins et al. 2017, eq. 4), with a schedule for β.

β = 1 is the VAE of Kingma & Welling 2014 (arXiv:1312.6114). Both parts are summed over pixels and
latents; the paper's normalised β·L/D is logged beside β as `beta_normalised`.
"""

import math
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from pipeline.nn import likelihoods, losses, metrics, networks, schedules


class Terms(NamedTuple):
    """Per-example terms of the objective, nats."""

    reconstruction: Array  # [B], −log p(x|z), summed over pixels
    kl: Array  # [B], KL(q(z|x) ‖ N(0, 1)), summed over latents


class Model(nnx.Module):
    """β-VAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds encoder and decoder for one example of the data set.

        Args:
            config: the whole config; reads `model` and `compute_dtype`.
            example: abstract example, `image` of shape [H, W, C].
            rngs: the stream `params`.
        """
        self.shape = example["image"].shape
        self.latent_dim = config.model.latent_dim
        self.beta = schedules.make(config.model.beta, field="model.beta")
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
        del step
        mean, log_variance = self.posterior(batch)
        reconstruction = self.nll(losses.sample_normal(mean, log_variance, keys), batch)
        kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
        return Terms(reconstruction, kl), {}

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z)] + β(step)·KL, nats per example."""
        return means.reconstruction + self.beta(step) * means.kl

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns what is logged, from means over the global batch or data set."""
        del sums
        beta, num_dims = self.beta(step), math.prod(self.shape)
        return {
            "reconstruction_loss": means.reconstruction,
            "kl_loss": means.kl,
            "beta": beta,
            "beta_normalised": beta * self.latent_dim / num_dims,
            **self.likelihood.metrics(
                distortion=means.reconstruction, rate=means.kl, num_dims=num_dims
            ),
        }
