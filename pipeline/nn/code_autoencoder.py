"""An autoencoder whose decoder sees a grid of codes: all of a VQ-VAE except its objective.

The reconstruction term is −log p(x|z) in nats or, with `likelihood=mse`, the squared error divided
by the data's variance.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline import datasets
from pipeline.nn import image_terms, likelihoods, losses, metrics, networks, quantizers
from pipeline.nn.grids import autoencoder
from pipeline.runtime import errors, registry

COLLAPSED = 0.1  # share of codes in use below which a codebook counts as collapsed


class CodeAutoencoder(nnx.Module):
    """Encoder, quantiser and decoder, with h·w vectors of D dimensions per image."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the three parts for one example of the data set.

        Args:
            config: the whole config; reads `model`, `data.variance`, `compute_dtype`, `batch_size`
                and `seed`.
            example: abstract example, `image` of shape [H, W, C].
            rngs: the stream `params`.

        Raises:
            InputError: a value of `config.model` or `config.data.variance` cannot work.
        """
        # Networks before the quantiser: they share a stream, so the order decides the values.
        section, pixels = config.model, datasets.images_of(config, example)
        self.image_shape = pixels.shape
        self.encoder, self.decoder = autoencoder.make(
            config, self.image_shape, quantizers.dim(config), rngs=rngs
        )
        self.grid = tuple(side // section.downsampling for side in self.image_shape[:2])
        self.quantizer = quantizers.make(config, math.prod(self.grid), rngs=rngs)
        self.image_terms = image_terms.ImageTerms(config, self.image_shape, rngs=rngs)
        registry.check(section.likelihood, ("mse", *likelihoods.NAMES), field="model.likelihood")
        self.likelihood: likelihoods.Likelihood | None
        if section.likelihood != "mse":
            self.likelihood = likelihoods.Likelihood(section, resolution=pixels.resolution)
            return
        self.likelihood = None
        self.variance = config.data.variance
        if self.variance < 0:
            raise errors.InputError(f"config.data.variance={self.variance} must not be negative")

    def encode(self, image: Array) -> Array:
        """Returns the codes of images, [B, h, w] int32 ([B, h, w, Q] with Q codebooks)."""
        return self.quantizer(self.encodings(image)).codes

    def decode(self, codes: Array) -> Array:
        """Returns the expected images, [B, H, W, C] in [0, 1], for codes from `encode`."""
        outputs = self.outputs(self.vectors(codes))
        if self.likelihood is None:
            return jnp.clip(outputs, 0.0, 1.0)
        return self.likelihood.display(outputs)

    def vectors(self, codes: Array) -> Array:
        """Returns the decoder's input for codes, [B, h, w, D] float32."""
        return self.quantizer.lookup(codes)

    def reconstruct(self, batch: dict[str, Array]) -> Array:
        """Returns the images decoded from their codes, [B, H, W, C] in [0, 1]."""
        return self.decode(self.encode(batch["image"]))

    def sample(self, keys: Array) -> Array:
        """Returns one image for each key, [B, H, W, C] in [0, 1], decoded from uniform codes.

        These are images of random codes, not samples of the model. Samples would need a prior that
        is fitted to the codes.
        """
        shape, num_codes = (*self.grid, *self.quantizer.shape), self.quantizer.num_codes
        return self.decode(jax.vmap(lambda key: jax.random.randint(key, shape, 0, num_codes))(keys))

    def encodings(self, image: Array) -> Array:
        """Returns the vectors to quantise, [B, h, w, D] float32, for images [B, H, W, C]."""
        # Centred, as in Sonnet: if all inputs are positive, learning starts more slowly.
        return self.encoder(networks.unit_interval(image) - 0.5).astype(jnp.float32)

    def outputs(self, values: Array) -> Array:
        """Returns logits or means, [B, H, W, C] float32, for the decoder's input [B, h, w, D].

        In both, a zero from the decoder is mid-grey.
        """
        outputs = self.decoder(values).astype(jnp.float32)
        logits = self.likelihood is not None and self.likelihood.name == "bernoulli"
        return outputs if logits else outputs + 0.5

    def reconstruction(self, outputs: Array, image: Array) -> Array:
        """Returns −log p(x|z), [B] nats, summed over pixels; or the error over the variance.

        Args:
            outputs: [B, H, W, C], logits or means.
            image: [B, H, W, C] in [0, 1].
        """
        if self.likelihood is None:
            return losses.scaled_squared_error(outputs, image, variance=self.variance)
        return self.likelihood.nll(outputs, image)

    def generated(self, outputs: Array) -> Array:
        """Returns the images that logits or means stand for; means may leave [0, 1]."""
        return outputs if self.likelihood is None else self.likelihood.mean(outputs)

    def updated_stats(self, sums: dict) -> Any:
        """Moves averages by sums over the global batch, and returns the new statistics."""
        self.quantizer.update(sums)
        self.image_terms.update(sums)
        return nnx.as_pure(nnx.state(self, nnx.Not(nnx.Param)))

    def metrics(self, means: Any, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, except those of the objective.

        Args:
            means: means of `reconstruction` and `quantizer` over the global batch or data set.
            sums: sums of the quantiser's statistics over the same examples.
            step: int32 scalar.
        """
        del step
        figures = {
            "reconstruction_loss": means.reconstruction,
            **self.quantizer.metrics(means.quantizer),
            **metrics.code_use(jnp.atleast_2d(sums["counts"])),
        }
        if self.likelihood is None:
            return figures
        # The KL between one certain code and a uniform prior is log K per code (the paper's
        # section 3.2).
        num_codes = math.prod((*self.grid, *self.quantizer.shape))
        return figures | self.likelihood.metrics(
            distortion=means.reconstruction,
            rate=jnp.float32(num_codes * math.log(self.quantizer.num_codes)),
            num_dims=math.prod(self.image_shape),
        )


def warnings(figures: dict[str, float]) -> list[str]:
    """Returns warnings that follow from the held-out figures, each with its remedies."""
    usage = figures.get("codebook_usage", 1.0)
    if usage >= COLLAPSED:
        return []
    return [
        f"only {usage:.1%} of the codes are in use: the codebook has collapsed. With "
        "config.model.quantizer: restart_steps=100 (replaces unused codes), init='data', "
        "codebook='ema', cosine=True, gradient='rotation', or fewer num_codes; a smaller "
        "config.model.latent_dim; name='sim_vq'; or name='fsq', which has no codebook"
    ]
