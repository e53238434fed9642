"""β-VAE: reconstruction + β·KL (Higgins et al. 2017, eq. 4), with a schedule for β.

β = 1 is the VAE of Kingma & Welling 2014 (arXiv:1312.6114). The reconstruction is summed over
pixels and the KL over latents. The paper's normalised β·L/D, for L latents and D pixels times
channels, is logged beside β as `beta_normalised`. With a grid of latents and the terms of
`nn.image_terms`, it is the autoencoder of Rombach et al. 2022 (arXiv:2112.10752), section 3.1.
"""

import math
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from pipeline.nn import gaussian_vae, image_terms, metrics, networks, schedules


class Terms(NamedTuple):
    """Per-example terms of the objective; the first two as in `gaussian_vae.Terms`."""

    reconstruction: Array  # [B], nats
    kl: Array  # [B], nats
    image: dict[str, Array]  # [B], of `image_terms`; empty if their weights are 0


class Model(gaussian_vae.GaussianVAE):
    """β-VAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the schedule `config.model.beta`, then the networks, as `GaussianVAE` does."""
        self.beta = schedules.make(config.model.beta, field="model.beta")
        super().__init__(config, example, rngs=rngs)
        self.image_terms = image_terms.ImageTerms(config, self.shape, rngs=rngs)

    def terms(self, batch: gaussian_vae.Batch, *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, from one sample of z each, and sums of averages."""
        (reconstruction, kl), outputs = self.autoencoded(batch, keys=keys)
        generated, image = self.likelihood.mean(outputs), networks.unit_interval(batch["image"])
        further = self.image_terms(generated, image, step=step)
        sums = self.image_terms.statistics(further, batch["mask"])
        return Terms(reconstruction, kl, further), sums

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = E[−log p(x|z)] + β(step)·KL + what `image_terms` adds, per example."""
        further = self.image_terms.loss(means.image, step=step)
        return means.reconstruction + self.beta(step) * means.kl + further

    def updated_stats(self, sums: dict) -> Any:
        """Moves averages by sums over the global batch, and returns the new statistics."""
        self.image_terms.update(sums)
        return nnx.as_pure(nnx.state(self, nnx.Not(nnx.Param)))

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        beta = self.beta(step)
        figures = super().metrics(means, sums, step=step) | {
            "beta": beta,
            "beta_normalised": beta * self.latent_dim / math.prod(self.shape),
        }
        return figures | self.image_terms.metrics(means.image, step=step)


first_stats = image_terms.first_stats  # LPIPS's weights
warnings = image_terms.warnings  # of a discriminator that has won or lost
