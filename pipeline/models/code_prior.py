"""A prior over the codes of a VQ-VAE: −log p(c), with p(c) = Π p(cₜ | c₁ … cₜ₋₁, y).

Van den Oord et al. 2017 (arXiv:1711.00937), section 3.3. It is trained on the codes of images by
their exact likelihood, and its samples become images in the VQ-VAE's decoder. With the distortion
of the codes, log p(x | c) + log p(c) is a bound on log p(x), where a VQ-VAE alone has log K a code.
"""

import math
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from pipeline.nn import metrics
from pipeline.nn.autoregressive import code_model


class Terms(NamedTuple):
    """Per-example terms, [B] each."""

    nll: Array  # −log p(c), nats, summed over the codes
    accuracy: Array  # share of the codes that were the most probable ones
    distortion: Array | None  # −log p(x | c), nats, if the VQ-VAE has a likelihood


class Model(code_model.CodeModel):
    """An autoregressive distribution over the codes of an image."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the networks and the decoder as `CodeModel` does."""
        super().__init__(config, example, rngs=rngs)
        self.has_distortion = "distortion" in example

    def terms(self, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Terms, dict]:
        """Returns the terms of every example, and no sums."""
        del step
        scores = self.scores(batch, keys=keys)
        distortion = batch["distortion"] if self.has_distortion else None
        return Terms(scores.nll.sum(axis=-1), scores.correct.mean(axis=-1), distortion), {}

    def objective(self, means: Terms, *, step: Array) -> Array:
        """Returns L = −log p(c), nats per code."""
        del step
        return means.nll / self.num_places

    def metrics(self, means: Terms, sums: dict, *, step: Array) -> metrics.Metrics:
        """Returns the figures to log, from means over the global batch or data set."""
        nats = self.objective(means, step=step)
        found = {
            "nats_per_code": nats,
            "bits_per_code": nats / math.log(2.0),
            "code_accuracy": means.accuracy,
        }
        if means.distortion is None:
            return found
        return found | self.bound(distortion=means.distortion, rate=means.nll)


first_stats = code_model.first_stats  # the decoder's arrays
