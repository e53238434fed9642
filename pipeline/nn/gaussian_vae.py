"""The VAE with a Gaussian posterior and a standard normal prior; a variant adds its objective.

A variant inherits from `GaussianVAE` and defines `objective` and `metrics`. A variant whose
networks see more than the image, such as labels, also defines `condition`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline import datasets
from pipeline.nn import likelihoods, losses, metrics, networks
from pipeline.runtime import errors

Batch = dict[str, Array]


def gaussian(outputs: Array) -> tuple[Array, Array]:
    """Splits an encoder's outputs into the posterior's mean and log-variance.

    The log-variance is clipped to [−20, 20] (σ from 5e-5 to 2e4), so that its exponential stays
    finite. Outside that range its gradient is zero.

    Args:
        outputs: [B, 2·D], all means first.

    Returns:
        mean [B, D] and log_variance [B, D].
    """
    mean, log_variance = jnp.split(outputs, 2, axis=-1)
    return mean, jnp.clip(log_variance, -20.0, 20.0)


class Terms(NamedTuple):
    """Per-example terms of the objective, in nats."""

    reconstruction: Array  # [B], −log p(x|z), summed over pixels
    kl: Array  # [B], KL(q(z|x) ‖ N(0, 1)), summed over latents


class GaussianVAE(nnx.Module):
    """q(z|x) is a diagonal Gaussian, p(z) is N(0, 1), and p(x|z) is the config's likelihood.

    A conditional variant also conditions q(z|x) and p(x|z) on y. Its methods take y as
    `conditions`, a mapping from names to arrays [B, ...]; a batch is such a mapping. Other variants
    ignore that argument.

    D is the number of latents of an image, `latent_dim`. For a grid of them, of `latent_shape`
    (h, w, D'), it is h·w·D', where D' is `config.model.latent_dim`.
    """

    def __init__(
        self,
        config: Any,
        example: Any,
        *,
        rngs: nnx.Rngs,
        dense_layers: Callable[..., Any] = networks.Dense,
    ):
        """Builds encoder and decoder for one example of the data set.

        Args:
            config: the whole config; reads `model` and `compute_dtype`.
            example: abstract example, `image` of shape [H, W, C].
            rngs: the stream `params`.
            dense_layers: builds dense layers, see `networks.autoencoder`.

        Raises:
            InputError: a value of `config.model` cannot work.
        """
        pixels = datasets.images_of(config, example)
        self.shape = pixels.shape
        self.likelihood = likelihoods.Likelihood(config.model, resolution=pixels.resolution)
        self.encoder, self.decoder = networks.autoencoder(
            config, self.shape, rngs=rngs, dense_layers=dense_layers
        )
        self.latent_shape = self.decoder.latent_shape
        self.latent_dim = math.prod(self.latent_shape)

    def condition(self, conditions: Mapping[str, Array] | None, *, num: int) -> tuple[Array, ...]:
        """Returns the further inputs of the networks, [num, E] each: none.

        A conditional variant returns the embedding of `conditions`, for `num` examples.
        """
        del conditions, num
        return ()

    def encode(
        self, image: Array, conditions: Mapping[str, Array] | None = None
    ) -> tuple[Array, Array]:
        """Returns mean and log-variance of q(z|x), [B, D] each, for images [B, H, W, C]."""
        condition = self.condition(conditions, num=image.shape[0])
        return gaussian(self.encoder(networks.unit_interval(image), *condition))

    def decode(self, z: Array, conditions: Mapping[str, Array] | None = None) -> Array:
        """Returns the expected images in [0, 1], [B, H, W, C], for latents [B, D]."""
        condition = self.condition(conditions, num=z.shape[0])
        return self.likelihood.display(self.decoder(z, *condition))

    def posterior(self, batch: Batch) -> tuple[Array, Array]:
        """Returns mean and log-variance of q(z|x) for a batch, [B, D] each."""
        return self.encode(batch["image"], batch)

    def nll(self, z: Array, batch: Batch) -> Array:
        """Returns −log p(x|z) of a batch, [B] nats, summed over pixels, for latents [B, D]."""
        outputs = self.decoder(z, *self.condition(batch, num=z.shape[0]))
        return self.likelihood.nll(outputs, networks.unit_interval(batch["image"]))

    def reconstruct(self, batch: Batch) -> Array:
        """Returns the images decoded from the posterior's means, [B, H, W, C] in [0, 1]."""
        return self.decode(self.encode(batch["image"], batch)[0], batch)

    def sample(self, keys: Array, conditions: Mapping[str, Array] | None = None) -> Array:
        """Returns one image for each key, [B, H, W, C] in [0, 1], decoded from z ~ N(0, 1)."""
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(keys)
        return self.decode(z, conditions)

    def terms(self, batch: Batch, *, keys: Array, step: Array) -> tuple[Any, dict]:
        """Returns the terms of every example, from one sample of z each, and no sums."""
        del step
        return self.autoencoded(batch, keys=keys)[0], {}

    def autoencoded(self, batch: Batch, *, keys: Array) -> tuple[Terms, Array]:
        """Returns the terms of every example, and the decoder's outputs, [B, H, W, C]."""
        image = networks.unit_interval(batch["image"])
        # One call serves both networks, so that the embedding's gradient is computed only once.
        condition = self.condition(batch, num=image.shape[0])
        mean, log_variance = gaussian(self.encoder(image, *condition))
        z = losses.sample_normal(mean, log_variance, keys)
        outputs = self.decoder(z, *condition)
        kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
        return Terms(self.likelihood.nll(outputs, image), kl), outputs

    def metrics(self, means: Any, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures of every variant, from means over the global batch or data set."""
        del sums, step
        return {
            "reconstruction_loss": means.reconstruction,
            "kl_loss": means.kl,
            **self.likelihood.metrics(
                distortion=means.reconstruction, rate=means.kl, num_dims=math.prod(self.shape)
            ),
        }


class Shown(NamedTuple):
    """What an example of a `CoupledVAE` shows the others, [B, D] each."""

    z: Array  # a sample of q(z|x)
    mean: Array
    log_variance: Array
    drawn: Any = None  # [B, D] or None: what a variant draws beside it by the example's key


class CoupledVAE(GaussianVAE):
    """A `GaussianVAE` whose variant also defines `coupled`; see the contract in `models`."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the networks of `GaussianVAE`.

        Raises:
            InputError: a batch holds one example, or a value of `config.model` cannot work.
        """
        hint = ": this model compares the examples of a batch"
        errors.check_range("config.batch_size", config.batch_size, 2, hint=hint)
        super().__init__(config, example, rngs=rngs)

    def shown(self, batch: Batch, *, keys: Array, step: Array) -> Shown:
        """Returns a sample of z for each example, and its posterior."""
        del step
        mean, log_variance = self.posterior(batch)
        return Shown(losses.sample_normal(mean, log_variance, keys), mean, log_variance)

    def terms(  # type: ignore[override]
        self, batch: Batch, *, keys: Array, step: Array, shown: Shown
    ) -> tuple[Any, dict]:
        """Returns the terms of every example at the z that it shows, and no sums."""
        del keys, step
        kl = losses.kl_to_standard_normal(shown.mean, shown.log_variance).sum(axis=-1)
        return Terms(self.nll(shown.z, batch), kl), {}
