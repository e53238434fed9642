"""β-VAE: reconstruction + β·KL (Higgins et al. 2017, eq. 4), with a schedule for β.

β = 1 is the VAE of Kingma & Welling 2014 (arXiv:1312.6114). The reconstruction is summed over
pixels and the KL over latents. The paper's normalised β·L/D, for L latents and D pixels times
channels, is logged beside β as `beta_normalised`.
"""

import math
from typing import Any

from flax import nnx
from jax import Array

from pipeline.nn import gaussian_vae, metrics, schedules


class Model(gaussian_vae.GaussianVAE):
    """β-VAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the schedule `config.model.beta`, then the networks as `GaussianVAE` does."""
        self.beta = schedules.make(config.model.beta, field="model.beta")
        super().__init__(config, example, rngs=rngs)

    def objective(self, means: gaussian_vae.Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z)] + β(step)·KL, nats per example."""
        return means.reconstruction + self.beta(step) * means.kl

    def metrics(self, means: gaussian_vae.Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        beta = self.beta(step)
        return super().metrics(means, sums, step=step) | {
            "beta": beta,
            "beta_normalised": beta * self.latent_dim / math.prod(self.shape),
        }
