"""InfoVAE: −E[log p(x|z)] + (1 − α)·KL(q(z|x) ‖ p(z)) + (α + λ − 1)·MMD²(q(z), p(z)).

Zhao et al. 2017 (arXiv:1706.02262), eq. 6. α of 1 is the MMD-VAE; α = 0 and λ = 1 are a VAE. The
whole batch serves to estimate MMD², and every example brings a draw of the prior.
"""

from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from pipeline.nn import gaussian_vae, metrics, streams
from pipeline.nn.aggregate_posterior import discrepancy
from pipeline.runtime import errors, registry


class Coupled(NamedTuple):
    """What follows from what all examples show."""

    mmd: Array  # [B], the example's part of MMD², without a unit


class Model(gaussian_vae.CoupledVAE):
    """InfoVAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Reads α, λ (`lambda_mmd`) and `kernel`; builds the networks of `CoupledVAE`."""
        section = config.model
        self.kernel = registry.choose(discrepancy.KERNELS, section.kernel, field="model.kernel")
        hint = "; 1 leaves out the KL of each example"
        errors.check_range("config.model.alpha", section.alpha, 0, 1, hint=hint)
        hint = ": with a lower one the weight α + λ − 1 of the discrepancy is negative"
        least = 1 - section.alpha
        errors.check_range("config.model.lambda_mmd", section.lambda_mmd, least, hint=hint)
        self.of_kl, self.of_mmd = least, section.lambda_mmd - least
        super().__init__(config, example, rngs=rngs)

    def shown(self, batch: gaussian_vae.Batch, *, keys: Array, step: Array) -> gaussian_vae.Shown:
        """Returns a sample of z for each example, its posterior, and a draw of the prior."""
        own = streams.within(keys, streams.PRIOR)
        prior = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(own)
        return super().shown(batch, keys=keys, step=step)._replace(drawn=prior)

    def coupled(self, shown: gaussian_vae.Shown, *, mask: Array, step: Array) -> Coupled:
        """Returns every example's part of MMD², from what the whole batch shows."""
        return Coupled(discrepancy.mmd(shown.z, shown.drawn, mask, self.kernel))

    def objective(self, means: tuple[gaussian_vae.Terms, Coupled], *, step: Array) -> Array:
        """Returns E[−log p(x|z)] + (1 − α)·KL + (α + λ − 1)·MMD², nats per example."""
        own, coupled = means
        return own.reconstruction + self.of_kl * own.kl + self.of_mmd * coupled.mmd

    def metrics(self, means: Any, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        return super().metrics(means[0], sums, step=step) | means[1]._asdict()
