"""SimVQ: all codes are one learned linear map of fixed random vectors, so all move together."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.nn.quantizers import vectors
from pipeline.nn.quantizers.quantized import Quantized


class SimVQ(nnx.Module):
    """K codes E = C·W: C [K, D] is drawn once and stays, and W [D, D] learns by gradients.

    Zhu et al. 2024 (arXiv:2411.02038), algorithm 1. Of a plain codebook only codes that are used
    get a gradient, so the others stay behind as the encodings move. Here the vectors of a few codes
    move W, and with it every code. The objective is that of a codebook that learns by gradients.
    """

    def __init__(self, section: Any, dim: int, *, rngs: nnx.Rngs):
        """Draws C from N(0, 1/D); W begins as the identity, so E begins as C.

        Args:
            section: `model.quantizer`; reads `num_codes`, `commitment`, `gradient` and `chunk`.
            dim: D.
            rngs: the stream `params`.
        """
        self.num_codes, self.shape = section.num_codes, ()
        self.commitment, self.chunk = section.commitment, section.chunk
        self.gradient = vectors.GRADIENTS[section.gradient]
        draw = jax.random.normal(rngs.params(), (self.num_codes, dim)) / math.sqrt(dim)
        # No parameter, so neither gradients nor weight decay reach it; but checkpoints have it.
        self.coefficients = nnx.Variable(draw)
        self.basis = nnx.Param(jnp.eye(dim))

    def __call__(self, z: Array) -> Quantized:
        """Replaces each vector of z, [B, h, w, D], by its nearest code."""
        codes = vectors.nearest(z, self.codes, chunk=self.chunk)
        values = lax.stop_gradient(self.lookup(codes))
        # Not `lookup`: its gradient adds rows up by a scatter, on GPUs in any order.
        learned = _product(self.coefficients[...][codes], self.basis[...])
        terms = {
            "commitment": vectors.example_mean(jnp.square(z - values)),
            "codebook": vectors.example_mean(jnp.square(lax.stop_gradient(z) - learned)),
        }
        return Quantized(self.gradient(z, values), codes, terms, z)

    def lookup(self, codes: Array) -> Array:
        """Returns the vectors [..., D] float32 of codes [...]."""
        return self.codes[codes]

    def loss(self, means: dict[str, Array]) -> Array:
        """Returns ‖sg[z] − e‖² + β·‖z − sg[e]‖², mean over vectors and dimensions."""
        return means["codebook"] + self.commitment * means["commitment"]

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns `counts` [K] over these examples, padding left out."""
        del step
        return {"counts": vectors.count(quantized.codes, batch["mask"], self.num_codes)}

    def update(self, sums: dict[str, Array]) -> None:
        """Does nothing: only the optimizer moves the codes."""

    def metrics(self, means: dict[str, Array]) -> dict[str, Array]:
        """Returns the figures to log in addition to the use of the codes."""
        return {"commitment_loss": means["commitment"]}

    @property
    def codes(self) -> Array:
        """The codebook E = C·W, [K, D] float32."""
        return _product(self.coefficients[...], self.basis[...])


def _product(coefficients: Array, basis: Array) -> Array:
    # At the default precision of TPUs another code may be nearest.
    return jnp.matmul(coefficients, basis, precision=lax.Precision.HIGHEST)
