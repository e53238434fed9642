"""FactorVAE: −E[log p(x|z)] + KL(q(z|x) ‖ p(z)) + γ·TC, with TC = KL(q(z) ‖ Π_j q(z_j)).

Kim & Mnih 2018 (arXiv:1802.05983), eq. 2. A discriminator estimates TC, and its loss is a further
term. The paper takes turns and permutes a second batch; here one step trains both on one batch.
Each parameter has the gradient of its own term only: stop_gradient keeps the discriminator out of
TC, and the encoder out of the discriminator's loss.
"""

from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array, lax

from pipeline.nn import discriminators, gaussian_vae, metrics, streams
from pipeline.nn.aggregate_posterior import density_ratio
from pipeline.runtime import errors


class Coupled(NamedTuple):
    """What follows from the z that all examples show, [B] each."""

    total_correlation: Array  # log D(z)/(1 − D(z)), nats; its mean estimates TC
    discriminator_loss: Array  # cross-entropy of z and permuted z, nats
    discriminator_accuracy: Array  # share of them that D tells apart


class Model(gaussian_vae.CoupledVAE):
    """FactorVAE with a diagonal Gaussian posterior and a standard normal prior."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Reads `gamma` and `discriminator.hidden`; builds `CoupledVAE`'s networks and D."""
        section = config.model
        errors.check_not_negative("config.model.gamma", section.gamma)
        hint = ": a single one has no total correlation"
        self.gamma = section.gamma
        super().__init__(config, example, rngs=rngs)
        errors.check_range("config.model.latent_dim", self.latent_dim, 2, hint=hint)
        self.discriminator = density_ratio.Discriminator(
            self.latent_dim, section.discriminator.hidden, dtype=config.compute_dtype, rngs=rngs
        )

    def shown(self, batch: gaussian_vae.Batch, *, keys: Array, step: Array) -> gaussian_vae.Shown:
        """Returns each example's z and posterior, and numbers whose order permutes the batch."""
        own = streams.within(keys, streams.PERMUTATIONS)
        numbers = jax.vmap(lambda key: jax.random.uniform(key, (self.latent_dim,)))(own)
        return super().shown(batch, keys=keys, step=step)._replace(drawn=numbers)

    def coupled(self, shown: gaussian_vae.Shown, *, mask: Array, step: Array) -> Coupled:
        """Returns D's terms, with a permutation of the whole batch."""
        # The VAE's term trains no parameter of D.
        total_correlation = discriminators.frozen(self.discriminator)(shown.z)
        # D's terms train no encoder.
        z = lax.stop_gradient(shown.z)
        permuted = density_ratio.permuted(z, shown.drawn, mask)
        logits = self.discriminator(z), self.discriminator(permuted)
        of_logits = (discriminators.cross_entropy, discriminators.accuracy)
        return Coupled(total_correlation, *(function(*logits) for function in of_logits))

    def objective(self, means: tuple[gaussian_vae.Terms, Coupled], *, step: Array) -> Array:
        """Returns E[−log p(x|z)] + KL + γ·TC + D's cross-entropy, nats per example."""
        own, coupled = means
        vae = own.reconstruction + own.kl + self.gamma * coupled.total_correlation
        return vae + coupled.discriminator_loss

    def metrics(self, means: Any, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        return super().metrics(means[0], sums, step=step) | means[1]._asdict()
