"""VQ-VAE: reconstruction + ‖sg[z] − e‖² + β·‖z − sg[e]‖² (van den Oord et al. 2017, eq. 3).

arXiv:1711.00937. The quantiser is chosen by name; one that learns its codes by moving averages
leaves the middle term out. How the distances are reduced follows the reconstruction: with
`likelihood=mse` all are means over elements, as in Sonnet. With a likelihood in nats all are sums.
The paper averages over the h·w vectors there, and its weight of the distances would hardly be felt.
"""

import math
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from pipeline.nn import code_autoencoder, metrics, networks, quantizers


class Terms(NamedTuple):
    """Per-example terms of the objective."""

    reconstruction: Array  # [B]: −log p(x|z) in nats, summed over pixels; or error over variance
    quantizer: dict[str, Array]  # [B, ...]: distances, means over vectors and dimensions; …


class Model(code_autoencoder.CodeAutoencoder):
    """An autoencoder whose decoder sees a grid of codes."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the networks and the quantiser, see `CodeAutoencoder`."""
        super().__init__(config, example, rngs=rngs)
        # The distances are means over vectors and dimensions; times their number, they are sums.
        sums = self.likelihood is not None
        self.scale = math.prod(self.grid) * quantizers.dim(config) if sums else 1

    def terms(self, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, and what the codebook learns from these examples."""
        del keys
        image = networks.unit_interval(batch["image"])
        quantized = self.quantizer(self.encodings(image))
        reconstruction = self.reconstruction(quantized.values, image)
        sums = self.quantizer.statistics(quantized, batch, step)
        return Terms(reconstruction, quantized.terms), sums

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = reconstruction + ‖sg[z] − e‖² (unless by averages) + β·‖z − sg[e]‖²."""
        del step
        return means.reconstruction + self.vq_loss(means)

    def vq_loss(self, means: Terms) -> Array:
        """Returns what quantisation adds to the objective."""
        return self.scale * self.quantizer.loss(means.quantizer)

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns what is logged, from means and sums over the global batch or data set."""
        return super().metrics(means, sums, step=step) | {"vq_loss": self.vq_loss(means)}


warnings = code_autoencoder.warnings  # of a collapsed codebook
