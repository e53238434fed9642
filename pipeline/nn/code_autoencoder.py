"""An autoencoder whose decoder sees a grid of codes: all of a VQ-VAE but its objective.

The reconstruction is a likelihood in nats or, with `likelihood=mse`, the squared error over the
data's variance.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import grid_networks, likelihoods, losses, metrics, networks, quantizers
from pipeline.runtime import errors, registry

COLLAPSED = 0.1  # share of codes in use below which a codebook counts as collapsed


class CodeAutoencoder(nnx.Module):
    """Encoder, quantiser and decoder; h·w vectors of D dimensions an image."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the three for one example of the data set.

        Args:
            config: the whole config; reads `model`, `data.variance`, `compute_dtype`, `batch_size`
                and `seed`.
            example: abstract example, `image` of shape [H, W, C].
            rngs: the stream `params`.

        Raises:
            InputError: a value of `config.model` or `config.data.variance` that can't work.
        """
        section, self.image_shape = config.model, example["image"].shape
        self.encoder, self.decoder = grid_networks.autoencoder(
            config, self.image_shape, quantizers.dim(config), rngs=rngs
        )
        self.grid = tuple(side // section.downsampling for side in self.image_shape[:2])
        self.quantizer = quantizers.make(config, math.prod(self.grid), rngs=rngs)
        self.variance = config.data.variance
        if self.variance < 0:
            raise errors.InputError(f"config.data.variance={self.variance} must not be negative")
        registry.check(section.likelihood, ("mse", *likelihoods.NAMES), field="model.likelihood")
        self.likelihood = None if section.likelihood == "mse" else likelihoods.Likelihood(section)

    def encode(self, image: Array) -> Array:
        """Returns the codes of images, [B, h, w] int32 (of `residual_vq` [B, h, w, Q])."""
        return self.quantizer(self.encodings(image)).codes

    def decode(self, codes: Array) -> Array:
        """Returns the expected images in [0, 1], [B, H, W, C], of codes as `encode` gives them."""
        outputs = self.outputs(self.vectors(codes))
        if self.likelihood is None:
            return jnp.clip(outputs, 0.0, 1.0)
        return self.likelihood.display(outputs)

    def vectors(self, codes: Array) -> Array:
        """Returns what the decoder sees of codes, [B, h, w, D] float32."""
        return self.quantizer.lookup(codes)

    def reconstruct(self, batch: dict[str, Array]) -> Array:
        """Returns the images decoded from their codes, [B, H, W, C] in [0, 1]."""
        return self.decode(self.encode(batch["image"]))

    def sample(self, keys: Array) -> Array:
        """Returns one image in [0, 1] for each key, decoded from codes drawn uniformly.

        These are images of random codes, not samples of the model: for those, a prior must be
        fitted to the codes.
        """
        shape, num_codes = (*self.grid, *self.quantizer.shape), self.quantizer.num_codes
        return self.decode(jax.vmap(lambda key: jax.random.randint(key, shape, 0, num_codes))(keys))

    def encodings(self, image: Array) -> Array:
        """Returns what is quantised, [B, h, w, D] float32, of images [B, H, W, C]."""
        # Centred, as in Sonnet: with inputs that are all positive, learning starts slower.
        return self.encoder(networks.unit_interval(image) - 0.5).astype(jnp.float32)

    def outputs(self, values: Array) -> Array:
        """Returns logits or means, [B, H, W, C] float32, of what the decoder sees, [B, h, w, D].

        The decoder's zero is mid-grey in both.
        """
        outputs = self.decoder(values).astype(jnp.float32)
        logits = self.likelihood is not None and self.likelihood.name == "bernoulli"
        return outputs if logits else outputs + 0.5

    def reconstruction(self, values: Array, image: Array) -> Array:
        """Returns −log p(x|z), [B] nats, summed over pixels; or the error over the variance.

        Args:
            values: [B, h, w, D], what the decoder sees.
            image: [B, H, W, C] in [0, 1].
        """
        outputs = self.outputs(values)
        if self.likelihood is None:
            return losses.scaled_squared_error(outputs, image, variance=self.variance)
        return self.likelihood.nll(outputs, image)

    def updated_stats(self, sums: dict) -> Any:
        """Returns the statistics with the codebook moved by sums over the global batch."""
        self.quantizer.update(sums)
        return nnx.as_pure(nnx.state(self, nnx.Not(nnx.Param)))

    def metrics(self, means: Any, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns what is logged besides the objective's terms.

        Args:
            means: of `reconstruction` and `quantizer`, over the global batch or data set.
            sums: of the quantiser's statistics, over the same.
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
        # KL of one certain code from uniform ones: log K for each (section 3.2 of the paper).
        num_codes = math.prod((*self.grid, *self.quantizer.shape))
        return figures | self.likelihood.metrics(
            distortion=means.reconstruction,
            rate=jnp.float32(num_codes * math.log(self.quantizer.num_codes)),
            num_dims=math.prod(self.image_shape),
        )


def warnings(figures: dict[str, float]) -> list[str]:
    """Returns what is wrong by the held-out figures, and what helps."""
    usage = figures.get("codebook_usage", 1.0)
    if usage >= COLLAPSED:
        return []
    return [
        f"only {usage:.1%} of the codes are in use: the codebook has collapsed. With "
        "config.model.quantizer: restart_steps=100 (replaces unused codes), init='data', "
        "codebook='ema', cosine=True, gradient='rotation', or fewer num_codes; a smaller "
        "config.model.latent_dim; or name='fsq', which has no codebook"
    ]
