"""VQ-VAE: reconstruction + ‖sg[z] − e‖² + β·‖z − sg[e]‖² (van den Oord et al. 2017, eq. 3).

arXiv:1711.00937. The quantiser is chosen by name; one that learns its codes by moving averages
leaves the middle term out. How the distances are reduced follows the reconstruction: with
`likelihood=mse` all are means over elements, as in Sonnet; with a likelihood in nats all are sums,
where the paper averages over the h·w vectors: its weight of the distances would hardly be felt.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import grid_networks, likelihoods, losses, metrics, networks, quantizers
from pipeline.runtime import errors, registry

COLLAPSED = 0.1  # share of codes in use below which a codebook counts as collapsed


class Terms(NamedTuple):
    """Per-example terms of the objective."""

    reconstruction: Array  # [B]: −log p(x|z) in nats, summed over pixels; or error over variance
    quantizer: dict[str, Array]  # [B, ...]: distances, means over vectors and dimensions; …


class Model(nnx.Module):
    """An autoencoder whose decoder sees a grid of codes."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds encoder, quantiser and decoder for one example of the data set.

        Args:
            config: the whole config; reads `model`, `data.variance`, `compute_dtype`, `batch_size`
                and `seed`.
            example: abstract example, `image` of shape [H, W, C].
            rngs: the stream `params`.
        """
        section, dim = config.model, quantizers.dim(config)
        self.image_shape = example["image"].shape
        self.encoder, self.decoder = grid_networks.autoencoder(
            config, self.image_shape, dim, rngs=rngs
        )
        self.grid = tuple(side // section.downsampling for side in self.image_shape[:2])
        self.quantizer = quantizers.make(config, math.prod(self.grid), rngs=rngs)
        self.variance = config.data.variance
        if self.variance < 0:
            raise errors.InputError(f"config.data.variance={self.variance} must not be negative")
        registry.check(section.likelihood, ("mse", *likelihoods.NAMES), field="model.likelihood")
        self.likelihood = None if section.likelihood == "mse" else likelihoods.Likelihood(section)
        self.scale = 1 if self.likelihood is None else math.prod(self.grid) * dim

    def encode(self, image: Array) -> Array:
        """Returns the codes of images, [B, h, w] int32 (of `residual_vq` [B, h, w, Q])."""
        return self.quantizer(self._encodings(image)).codes

    def decode(self, codes: Array) -> Array:
        """Returns the expected images in [0, 1], [B, H, W, C], of codes as `encode` gives them."""
        outputs = self._outputs(self.quantizer.lookup(codes))
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

        Random codes, and no samples of the model: for those, a prior must be fitted to the codes.
        """
        shape, num_codes = (*self.grid, *self.quantizer.shape), self.quantizer.num_codes
        return self.decode(jax.vmap(lambda key: jax.random.randint(key, shape, 0, num_codes))(keys))

    def terms(self, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, and what the codebook learns from these examples."""
        del keys
        image = networks.unit_interval(batch["image"])
        quantized = self.quantizer(self._encodings(image))
        outputs = self._outputs(quantized.values)
        if self.likelihood is None:
            reconstruction = losses.scaled_squared_error(outputs, image, variance=self.variance)
        else:
            reconstruction = self.likelihood.nll(outputs, image)
        sums = self.quantizer.statistics(quantized, batch, step)
        return Terms(reconstruction, quantized.terms), sums

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = reconstruction + ‖sg[z] − e‖² (unless by averages) + β·‖z − sg[e]‖²."""
        del step
        return means.reconstruction + self.vq_loss(means)

    def vq_loss(self, means: Terms) -> Array:
        """Returns what quantisation adds to the objective."""
        return self.scale * self.quantizer.loss(means.quantizer)

    def updated_stats(self, sums: dict) -> Any:
        """Returns the statistics with the codebook moved by sums over the global batch."""
        self.quantizer.update(sums)
        return nnx.as_pure(nnx.state(self, nnx.Not(nnx.Param)))

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns what is logged, from means and sums over the global batch or data set."""
        del step
        figures = {
            "reconstruction_loss": means.reconstruction,
            "vq_loss": self.vq_loss(means),
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

    def _encodings(self, image: Array) -> Array:
        # Centred, as in Sonnet: with inputs that are all positive, learning starts slower.
        return self.encoder(networks.unit_interval(image) - 0.5).astype(jnp.float32)

    def _outputs(self, values: Array) -> Array:
        """Logits, or means: the decoder's zero is mid-grey in both."""
        outputs = self.decoder(values).astype(jnp.float32)
        logits = self.likelihood is not None and self.likelihood.name == "bernoulli"
        return outputs if logits else outputs + 0.5


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
