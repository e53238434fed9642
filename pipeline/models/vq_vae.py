"""VQ-VAE: reconstruction + ‖sg[z] − e‖² + β·‖z − sg[e]‖² (van den Oord et al. 2017, eq. 3).

arXiv:1711.00937. `config.model.quantizer.name` chooses the quantiser. One that learns its codes by
moving averages has no middle term. The reconstruction decides how the distances are reduced: with
`likelihood=mse` every term is a mean over elements, as in Sonnet. With a likelihood in nats every
term is a sum. The paper averages the distances over the h·w vectors; beside summed nats their
weight would be negligible. `nn.image_terms` may add perceptual and adversarial terms; with both it
is the VQGAN of Esser et al. 2021 (arXiv:2012.09841).
"""

import math
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from pipeline.nn import code_autoencoder, image_terms, metrics, networks, quantizers


class Terms(NamedTuple):
    """Per-example terms of the objective."""

    reconstruction: Array  # [B], −log p(x|z) in nats, summed over pixels; or error over variance
    quantizer: dict[str, Array]  # [B, ...], such as distances, means over vectors and dimensions
    image: dict[str, Array]  # [B], of `image_terms`; empty if their weights are 0


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
        outputs = self.outputs(quantized.values)
        further = self.image_terms(self.generated(outputs), image, step=step)
        sums = self.quantizer.statistics(quantized, batch, step)
        sums |= self.image_terms.statistics(further, batch["mask"])
        return Terms(self.reconstruction(outputs, image), quantized.terms, further), sums

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = reconstruction + ‖sg[z] − e‖² (if not by averages) + β·‖z − sg[e]‖² + …."""
        further = self.image_terms.loss(means.image, step=step)
        return means.reconstruction + self.vq_loss(means) + further

    def vq_loss(self, means: Terms) -> Array:
        """Returns the terms that quantisation adds to the objective, in the objective's unit."""
        return self.scale * self.quantizer.loss(means.quantizer)

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means and sums over the global batch or data set."""
        figures = super().metrics(means, sums, step=step) | {"vq_loss": self.vq_loss(means)}
        return figures | self.image_terms.metrics(means.image, step=step)


first_stats = image_terms.first_stats  # LPIPS's weights


def warnings(figures: dict[str, float]) -> list[str]:
    """Returns warnings of a collapsed codebook, and of a discriminator that has won or lost."""
    return [*code_autoencoder.warnings(figures), *image_terms.warnings(figures)]
