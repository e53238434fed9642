"""DIP-VAE: −ELBO + λ_od·Σ_{i≠j} C_ij² + λ_d·Σ_i (C_ii − 1)², for a covariance C of the latents.

Kumar et al. 2018 (arXiv:1711.00848), eq. 6 and 7. DIP-VAE-I takes the covariance of the means of
q(z|x), DIP-VAE-II that of q(z), which adds E[diag σ²]. It is one of the global batch (in evaluation
of the data set) and divides by N. It follows from means over examples, so no term is coupled.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import gaussian_vae, losses, metrics
from pipeline.runtime import errors, registry


class Terms(NamedTuple):
    """The first two, in nats, as in `gaussian_vae.Terms`; then the moments that C needs."""

    reconstruction: Array  # [B]
    kl: Array  # [B]
    mean: Array  # [B, D], of q(z|x)
    second_moment: Array  # [B, D, D], μ·μᵀ of q(z|x), or E[z·zᵀ] of it


class Model(gaussian_vae.GaussianVAE):
    """DIP-VAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Reads `covariance`, `lambda_od` and `lambda_d`; builds `GaussianVAE`'s networks."""
        section, hint = config.model, ": a single one has no covariance"
        registry.check(section.covariance, ("means", "samples"), field="model.covariance")
        self.of_samples = section.covariance == "samples"
        self.lambda_od, self.lambda_d = section.lambda_od, section.lambda_d
        errors.check_range("config.batch_size", config.batch_size, 2, hint=hint)
        super().__init__(config, example, rngs=rngs)
        errors.check_range("config.model.latent_dim", self.latent_dim, 2, hint=hint)

    def terms(self, batch: gaussian_vae.Batch, *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, from one sample of z each, and no sums."""
        del step
        mean, log_variance = self.posterior(batch)
        nll = self.nll(losses.sample_normal(mean, log_variance, keys), batch)
        kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
        second_moment = mean[:, :, None] * mean[:, None]
        if self.of_samples:
            second_moment += jnp.exp(log_variance)[:, None] * jnp.eye(self.latent_dim)
        return Terms(nll, kl, mean, second_moment), {}

    def penalties(self, means: Terms) -> tuple[Array, Array]:
        """Returns Σ_{i≠j} C_ij² and Σ_i (C_ii − 1)², scalars without a unit."""
        covariance = means.second_moment - jnp.outer(means.mean, means.mean)
        variances = jnp.diagonal(covariance)
        off_diagonal = jnp.square(covariance - jnp.diag(variances)).sum()
        return off_diagonal, jnp.square(variances - 1).sum()

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns E[−log p(x|z) + KL] + λ_od·Σ_{i≠j} C_ij² + λ_d·Σ_i (C_ii − 1)², nats."""
        off_diagonal, diagonal = self.penalties(means)
        penalty = self.lambda_od * off_diagonal + self.lambda_d * diagonal
        return means.reconstruction + means.kl + penalty

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        penalties = zip(("off_diagonal", "diagonal"), self.penalties(means), strict=True)
        figures = {f"covariance_{name}": penalty for name, penalty in penalties}
        return super().metrics(means, sums, step=step) | figures
