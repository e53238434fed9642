"""Conditional VAE: −log p(x|z, y) + β·KL(q(z|x, y) ‖ N(0, 1)) (Sohn et al. 2015, eq. 4 and 5).

The conditions y, classes or attributes of the data set, enter encoder and decoder. Sohn's prior
p(z|x) sees the input; here z is independent of y, as in Kingma et al. 2014 (arXiv:1406.5298), so
that z holds what y does not say. In training an example's conditions are dropped at times for a
learned null class, so that one model samples with and without them.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from pipeline.nn import conditioning, embeddings, likelihoods, losses, metrics, networks, schedules


class Terms(NamedTuple):
    """Per-example terms of the objective, nats."""

    reconstruction: Array  # [B], −log p(x|z, y), summed over pixels
    kl: Array  # [B], KL(q(z|x, y) ‖ N(0, 1)), summed over latents


class Model(nnx.Module):
    """Conditional VAE with a diagonal Gaussian posterior and a standard normal prior.

    Conditions are a mapping from the names in `model.conditions` to arrays [B, ...], such as a
    batch; None stands for the null class.
    """

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the embedding of the conditions, encoder and decoder.

        Args:
            config: the whole config; reads `model` and `compute_dtype`.
            example: abstract example, `image` of shape [H, W, C] and the conditions.
            rngs: the stream `params`.
        """
        self.shape = example["image"].shape
        self.latent_dim = config.model.latent_dim
        self.beta = schedules.make(config.model.beta, field="model.beta")
        self.likelihood = likelihoods.Likelihood(config.model)
        self.embedding = embeddings.Embedding(config.model, example, rngs=rngs)
        self.encoder, self.decoder = networks.autoencoder(
            config, self.shape, rngs=rngs, dense_layers=conditioning.dense_layers(config.model)
        )

    def encode(
        self, image: Array, conditions: Mapping[str, Array] | None = None
    ) -> tuple[Array, Array]:
        """Returns mean and log-variance of q(z|x, y), [B, D] each, for images [B, H, W, C]."""
        condition = self.embedding(conditions, num=image.shape[0])
        return networks.gaussian(self.encoder(networks.unit_interval(image), condition))

    def decode(self, z: Array, conditions: Mapping[str, Array] | None = None) -> Array:
        """Returns the expected images in [0, 1], [B, H, W, C], for latents [B, D]."""
        condition = self.embedding(conditions, num=z.shape[0])
        return self.likelihood.display(self.decoder(z, condition))

    def posterior(self, batch: dict[str, Array]) -> tuple[Array, Array]:
        """Returns mean and log-variance of q(z|x, y) for a batch, [B, D] each."""
        return self.encode(batch["image"], batch)

    def nll(self, z: Array, batch: dict[str, Array]) -> Array:
        """Returns −log p(x|z, y) of a batch, [B] nats, summed over pixels, for latents [B, D]."""
        return self._nll(z, batch, self.embedding(batch, num=z.shape[0]))

    def reconstruct(self, batch: dict[str, Array]) -> Array:
        """Returns the images decoded from the posterior's means, [B, H, W, C] in [0, 1]."""
        return self.decode(self.encode(batch["image"], batch)[0], batch)

    def sample(self, keys: Array, conditions: Mapping[str, Array] | None = None) -> Array:
        """Returns one image in [0, 1] for each key, decoded from z ~ N(0, 1).

        Without conditions they are the null class or, in a model trained without one, are drawn
        uniformly over the classes.
        """
        if conditions is None and self.embedding.null is None:
            conditions = self.embedding.draw(keys)
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(keys)
        return self.decode(z, conditions)

    def augment(self, batch: dict[str, Array], *, keys: Array) -> dict[str, Array]:
        """Drops the conditions of some examples, in training alone."""
        return self.embedding.drop(batch, keys=keys)

    def terms(self, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, with one sample of z, and no sums."""
        del step
        image = networks.unit_interval(batch["image"])
        condition = self.embedding(batch, num=image.shape[0])
        mean, log_variance = networks.gaussian(self.encoder(image, condition))
        z = losses.sample_normal(mean, log_variance, keys)
        reconstruction = self._nll(z, batch, condition)
        kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
        return Terms(reconstruction, kl), {}

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z, y)] + β(step)·KL, nats per example."""
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

    def _nll(self, z: Array, batch: dict[str, Array], condition: Array) -> Array:
        outputs = self.decoder(z, condition)
        return self.likelihood.nll(outputs, networks.unit_interval(batch["image"]))
