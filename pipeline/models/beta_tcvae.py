"""β-TCVAE: −E[log p(x|z)] + α·I(z; n) + β·TC + γ·Σ_j KL(q(z_j) ‖ p(z_j)).

Chen et al. 2018 (arXiv:1802.04942), eq. 4, with TC = KL(q(z) ‖ Π_j q(z_j)), the total correlation.
The three parts add up to the KL of a VAE. The whole batch serves to estimate q(z).
"""

from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from pipeline.nn import gaussian_vae, metrics, schedules
from pipeline.nn.aggregate_posterior import densities
from pipeline.runtime import registry


class Coupled(NamedTuple):
    """The parts of the KL for one sample of z, [B] nats each; a mean over examples is eq. 2."""

    index_code_information: Array  # log q(z|n) − log q(z)
    total_correlation: Array  # log q(z) − Σ_j log q(z_j)
    dimension_wise_kl: Array  # Σ_j (log q(z_j) − log p(z_j))


class Model(gaussian_vae.CoupledVAE):
    """β-TCVAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Reads `alpha`, `beta`, `gamma`, `estimator` and N; builds `CoupledVAE`'s networks."""
        section, estimators = config.model, densities.ESTIMATORS
        self.alpha, self.gamma = section.alpha, section.gamma
        self.num_examples = section.num_examples
        self.beta = schedules.make(section.beta, field="model.beta")
        self.weights = registry.choose(estimators, section.estimator, field="model.estimator")
        super().__init__(config, example, rngs=rngs)

    def coupled(self, shown: gaussian_vae.Shown, *, mask: Array, step: Array) -> Coupled:
        """Returns the parts of the KL of every example, from what the whole batch shows."""
        log_weights = self.weights(mask, self.num_examples)
        log_qz, log_qz_j = densities.log_densities(*shown[:3], log_weights)
        log_qz_n = densities.log_normal(*shown[:3]).sum(axis=-1)
        log_pz = densities.log_normal(shown.z, 0.0, 0.0).sum(axis=-1)
        marginals = log_qz_j.sum(axis=-1)
        return Coupled(log_qz_n - log_qz, log_qz - marginals, marginals - log_pz)

    def objective(self, means: tuple[gaussian_vae.Terms, Coupled], *, step: Array) -> Array:
        """Returns −E[log p(x|z)] + α·I(z; n) + β(step)·TC + γ·Σ_j KL_j, nats per example."""
        own, (information, correlation, kl_j) = means
        kl = self.alpha * information + self.beta(step) * correlation + self.gamma * kl_j
        return own.reconstruction + kl

    def metrics(self, means: Any, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        figures = super().metrics(means[0], sums, step=step)
        return figures | means[1]._asdict() | {"beta": self.beta(step)}
