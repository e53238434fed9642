"""Quantisers that round every dimension to one of a few levels: FSQ, once or on residuals."""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

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
        self.num_codes = math.prod(levels)
        self.shape: tuple[int, ...] = ()

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
        digits, half = _digits(codes[..., None], self._basis, levels), levels // 2
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


class ResidualFSQ(FSQ):
    """Q stages of FSQ, each of which rounds what the stages before it have left over.

    With r_0 = tanh z, and L levels at the centres of L equal cells of [−1, 1], for i from 0:

        q_i = L⁻ⁱ·f(Lⁱ·r_i),  r_{i+1} = r_i − q_i,  f(x) = (2·⌊L·(x + 1)/2⌋ + 1)/L − 1.

    The residuals are those of Zeghidour et al. 2021 (arXiv:2107.03312), algorithm 1. The levels are
    those of Parker et al. 2024 (arXiv:2411.19842), section 3.2, times (L − 1)/L, so that no outer
    cell is only half a cell. The scales are those of lucidrains' `ResidualFSQ`: without them later
    stages would see ever weaker signals (Zhu et al. 2025, arXiv:2508.15860).

    Only z is bounded. Then |r_i| ≤ L⁻ⁱ, and a tanh of each residual would keep later stages from
    their outer levels. The sum of the stages is the centre of one of L^Q equal cells, so it lies
    within ±(1 − L^−Q), and no two rows of codes have the same sum. One stage is not quite `FSQ`,
    which has a level at 0 for even L, too.
    """

    def __init__(self, levels: tuple[int, ...], depth: int):
        """Stores the levels L_1 … L_D of every stage, and Q."""
        super().__init__(levels)
        self.shape, self.depth = (depth,), depth

    def __call__(self, z: Array) -> Quantized:
        """Quantises z, [B, h, w, D], to codes [B, h, w, Q]; the gradient is that of tanh z."""
        bounded = jnp.tanh(z)
        # The digits of the cell's number in base L are those of the stages: no rounding error of a
        # residual can move a digit.
        cell = jnp.floor((bounded + 1.0) / 2.0 * self._cells).astype(jnp.int32)
        cell = jnp.clip(cell, 0, self._cells - 1)  # if tanh z is 1, or no number
        levels = np.array(self.levels, np.int32)
        digits = [_digits(cell, levels**power, levels) for power in reversed(range(self.depth))]
        codes = (jnp.stack(digits, axis=-2) * self._basis).sum(axis=-1, dtype=jnp.int32)
        return Quantized(vectors.straight_through(bounded, self.lookup(codes)), codes, {}, z)

    def lookup(self, codes: Array) -> Array:
        """Returns the sum of the stages' levels in (−1, 1): [..., Q] → [..., D] float32."""
        levels = np.array(self.levels, np.int32)
        weights = levels ** np.arange(self.depth)[::-1, None]  # [Q, D]
        digits = _digits(codes[..., None], self._basis, levels)
        cell = (digits * weights.astype(np.int32)).sum(axis=-2, dtype=jnp.int32)
        return (2 * cell + 1).astype(jnp.float32) / self._cells.astype(np.float32) - 1.0

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns `counts` [Q, K] over these examples, padding left out."""
        del step
        stages = jnp.moveaxis(quantized.codes, -1, 0)
        counts = [vectors.count(codes, batch["mask"], self.num_codes) for codes in stages]
        return {"counts": jnp.stack(counts)}

    @property
    def _cells(self) -> np.ndarray:
        return np.array(self.levels, np.int32) ** self.depth


def _digits(numbers: Array, weights: np.ndarray, bases: np.ndarray) -> Array:
    """Returns ⌊numbers/weights⌋ mod bases, of numbers that are not negative."""
    # Not `//` and `%`, which round to −∞: the converter to ONNX cannot write their remainder.
    quotient = lax.div(*jnp.broadcast_arrays(numbers, weights))
    return quotient - lax.div(*jnp.broadcast_arrays(quotient, bases)) * bases
