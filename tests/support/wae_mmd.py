"""A WAE-MMD whose kernel has a learned width and whose objective couples the means, for tests.

Tolstikhin et al. 2018 (arXiv:1711.01558), algorithm 2. So `coupled` reads a parameter, and the
objective is linear neither in the mean of the terms nor in that of the coupled terms.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from pipeline.nn import gaussian_vae, losses


class Shown(NamedTuple):
    z: jax.Array  # [B, D]
    prior: jax.Array  # [B, D], drawn from N(0, 1)


class Coupled(NamedTuple):
    mmd: jax.Array  # [B], an example's part of the squared discrepancy


class Model(gaussian_vae.GaussianVAE):
    def __init__(self, config, example, *, rngs):
        super().__init__(config, example, rngs=rngs)
        self.log_width = nnx.Param(jnp.zeros(()))

    def shown(self, batch, *, keys, step):
        mean, log_variance = self.posterior(batch)
        zeros, further = jnp.zeros_like(mean), jax.vmap(lambda key: jax.random.fold_in(key, 1))
        prior = losses.sample_normal(zeros, zeros, further(keys))
        return Shown(losses.sample_normal(mean, log_variance, keys), prior)

    def terms(self, batch, *, keys, step, shown):
        kl = losses.kl_to_standard_normal(*self.posterior(batch)).sum(axis=-1)
        return gaussian_vae.Terms(self.nll(shown.z, batch), kl), {}

    def coupled(self, shown, *, mask, step):
        width = 2 * self.latent_dim * jnp.exp(self.log_width[...])

        def kernel(one, other):
            squares = jnp.square(one[:, None] - other[None]).sum(axis=-1)
            return width / (width + squares)

        pairs = mask * (1 - jnp.eye(len(mask)))
        others = kernel(shown.z, shown.z) + kernel(shown.prior, shown.prior)
        same = (pairs * others).sum(axis=1) / jnp.maximum(mask.sum() - 1, 1)
        across = (mask * kernel(shown.z, shown.prior)).sum(axis=1) / mask.sum()
        return Coupled(same - 2 * across)

    def objective(self, means, *, step):
        own, coupled = means
        return own.reconstruction * (1 + jnp.square(coupled.mmd)) + 100 * jnp.exp(coupled.mmd)

    def metrics(self, means, sums, *, step):
        return super().metrics(means[0], sums, step=step) | means[1]._asdict()
