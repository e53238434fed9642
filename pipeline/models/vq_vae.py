"""VQ-VAE: reconstruction + ‖sg[z] − e‖² + β·‖z − sg[e]‖² (van den Oord et al. 2017, eq. 3).

arXiv:1711.00937. `config.model.quantizer.name` chooses the quantiser. One that learns its codes by
moving averages has no middle term. The reconstruction decides how the distances are reduced: with
`likelihood=mse` every term is a mean over elements, as in Sonnet. With a likelihood in nats every
term is a sum. The paper averages the distances over the h·w vectors; beside summed nats their
weight would be negligible.
"""

import math
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from pipeline.nn import code_autoencoder, metrics, networks, quantizers


class Terms(NamedTuple):
    """Per-example terms of the objective."""

    reconstruction: Array  # [B], −log p(x|z) in nats, summed over pixels; or error over variance
    quantizer: dict[str, Array]  # [B, ...], such as distances, means over vectors and dimensions


class Model(code_autoencoder.CodeAutoencoder):
    """An autoencoder whose decoder sees a grid of codes."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the networks and the quantiser as `CodeAutoencoder` does."""
        super().__init__(config, example, rngs=rngs)
        # The distances are means over vectors and dimensions: h·w·D times a mean is the sum.
        sums = self.likelihood is not None
        self.scale = math.prod(self.grid) * quantizers.dim(config) if sums else 1

    def terms(self, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, and the sums that the codebook learns from."""
        del keys
        image = networks.unit_interval(batch["image"])
        quantized = self.quantizer(self.encodings(image))
        reconstruction = self.reconstruction(quantized.values, image)
        sums = self.quantizer.statistics(quantized, batch, step)
        return Terms(reconstruction, quantized.terms), sums

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = reconstruction + ‖sg[z] − e‖² (if not by averages) + β·‖z − sg[e]‖²."""
        del step
        return means.reconstruction + self.vq_loss(means)

    def vq_loss(self, means: Terms) -> Array:
        """Returns the terms that quantisation adds to the objective, in the objective's unit."""
        return self.scale * self.quantizer.loss(means.quantizer)

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means and sums over the global batch or data set."""
        return super().metrics(means, sums, step=step) | {"vq_loss": self.vq_loss(means)}


warnings = code_autoencoder.warnings  # of a collapsed codebook
