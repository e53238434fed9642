"""The quantiser that rounds every dimension to one of a few levels: FSQ."""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from pipeline.nn.quantizers import vectors
from pipeline.nn.quantizers.quantized import Quantized


class FSQ(nnx.Module):
    """Finite scalar quantisation: each dimension is rounded to one of its levels.

    Mentzer et al. 2023 (arXiv:2309.15505), section 3.1 and appendix A.1. It adds no term to the
    objective, and has no codebook that could collapse.
    """

    def __init__(self, levels: tuple[int, ...]):
        """Stores the levels L_1 … L_D; K is their product."""
        self.levels = tuple(levels)
        self.num_codes, self.shape = math.prod(levels), ()

    def __call__(self, z: Array) -> Quantized:
        """Rounds f(z), which lies between the outermost levels; the gradient skips the rounding.

        f(z) = tanh(z + s)·l − o, with l = (L − 1)(1 − ε)/2, o = ½ for even L and 0 for odd L, and
        s = tan(o/l).
        """
        # The paper has tan and not artanh in s, so f(0) is only nearly 0.
        levels = np.array(self.levels)
        offset, half = np.where(levels % 2, 0.0, 0.5), (levels - 1) * (1.0 - 1e-3) / 2.0
        offset, half, shift = np.array((offset, half, np.tan(offset / half)), np.float32)
        bounded = jnp.tanh(z + shift) * half - offset
        digits = jnp.round(bounded).astype(jnp.int32) + levels // 2
        codes = (digits * self._basis).sum(axis=-1, dtype=jnp.int32)
        scaled = bounded / np.float32(levels // 2)
        return Quantized(vectors.straight_through(scaled, self.lookup(codes)), codes, {}, z)

    def lookup(self, codes: Array) -> Array:
        """Returns the codes' digits as levels in [−1, 1]: [...] → [..., D] float32."""
        levels = np.array(self.levels, np.int32)
        digits, half = codes[..., None] // self._basis % levels, levels // 2
        return (digits - half).astype(jnp.float32) / half.astype(np.float32)

    def loss(self, means: dict[str, Array]) -> Array:
        """Returns 0."""
        del means
        return jnp.float32(0.0)

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns `counts` [K] over these examples, padding left out."""
        del step
        return {"counts": vectors.count(quantized.codes, batch["mask"], self.num_codes)}

    def update(self, sums: dict[str, Array]) -> None:
        """Does nothing: there is no codebook."""

    def metrics(self, means: dict[str, Array]) -> dict[str, Array]:
        """Returns no figures: only the use of the codes is logged."""
        del means
        return {}

    @property
    def _basis(self) -> np.ndarray:
        return np.cumprod([1, *self.levels[:-1]], dtype=np.int32)
