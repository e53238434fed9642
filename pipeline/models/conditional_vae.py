"""Conditional VAE: −log p(x|z, y) + β·KL(q(z|x, y) ‖ N(0, 1)) (Sohn et al. 2015, eq. 4 and 5).

The conditions y are classes or attributes of the data set. Encoder and decoder both see them.
Sohn's prior p(z|x) depends on the input. Here the prior is independent of y, as in Kingma et al.
2014 (arXiv:1406.5298), so that z holds only what y does not say. Training randomly replaces an
example's conditions by a learned null class, so one model samples with and without conditions.
"""

import math
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax import Array

from pipeline.nn import conditioning, embeddings, gaussian_vae, metrics, schedules


class Model(gaussian_vae.GaussianVAE):
    """Conditional VAE with a diagonal Gaussian posterior and a standard normal prior.

    Its methods take conditions as a mapping from the names in `model.conditions` to arrays
    [B, ...]; a batch is such a mapping. None means the null class.
    """

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the embedding of the conditions, the networks, and the schedule `model.beta`."""
        self.beta = schedules.make(config.model.beta, field="model.beta")
        # Before the networks: both draw keys from one stream, so the order decides the values.
        self.embedding = embeddings.Embedding(config.model, example, rngs=rngs)
        layers = conditioning.dense_layers(config.model)
        super().__init__(config, example, rngs=rngs, dense_layers=layers)

    def condition(self, conditions: Mapping[str, Array] | None, *, num: int) -> tuple[Array]:
        """Returns the embedding of the conditions, [num, E]."""
        return (self.embedding(conditions, num=num),)

    def augment(self, batch: gaussian_vae.Batch, *, keys: Array) -> gaussian_vae.Batch:
        """Drops the conditions of some examples. Only training calls it."""
        return self.embedding.drop(batch, keys=keys)

    def sample(self, keys: Array, conditions: Mapping[str, Array] | None = None) -> Array:
        """Returns one image for each key, [B, H, W, C] in [0, 1], decoded from z ~ N(0, 1).

        Without conditions the null class is used. A model that has no null class draws the
        conditions uniformly over the classes.
        """
        if conditions is None and self.embedding.null is None:
            conditions = self.embedding.draw(keys)
        return super().sample(keys, conditions)

    def objective(self, means: gaussian_vae.Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z, y)] + β(step)·KL, nats per example."""
        return means.reconstruction + self.beta(step) * means.kl

    def metrics(self, means: gaussian_vae.Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        beta = self.beta(step)
        return super().metrics(means, sums, step=step) | {
            "beta": beta,
            "beta_normalised": beta * self.latent_dim / math.prod(self.shape),
        }
