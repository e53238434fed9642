"""The quantiser that takes the sign of every dimension: LFQ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from pipeline.nn.quantizers import vectors
from pipeline.nn.quantizers.quantized import Quantized


class LFQ(nnx.Module):
    """Lookup-free quantisation: each dimension becomes its sign, so K = 2^D.

    Yu et al. 2023 (arXiv:2310.05737), section 3.2. An entropy term makes each vector choose one
    code with confidence, and makes all vectors together use all codes.
    """

    def __init__(self, section: Any, dim: int):
        """Reads `commitment`, `entropy_weight`, `diversity`, `temperature` and `entropy_bits`.

        Above 2^entropy_bits codes, the probabilities of all codes would not fit in memory. The
        batch entropy then treats groups of dimensions as independent, which is an upper bound.
        """
        self.num_codes, self.shape, self.dim = 2**dim, (), dim
        self.commitment, self.temperature = section.commitment, section.temperature
        self.entropy_weight, self.diversity = section.entropy_weight, section.diversity
        self.group_size = section.entropy_bits

    def __call__(self, z: Array) -> Quantized:
        """Replaces z by its signs; the code of z is Σ_i 2^i·1{z_i > 0}, for i from 0."""
        bits = jnp.int32(z > 0) << np.arange(self.dim, dtype=np.int32)
        codes = bits.sum(axis=-1, dtype=jnp.int32)
        values = self.lookup(codes)
        terms = {"commitment": vectors.example_mean(jnp.square(z - values)), **self._soft(z)}
        return Quantized(vectors.straight_through(z, values), codes, terms, z)

    def lookup(self, codes: Array) -> Array:
        """Returns the codes' bits as −1 and 1: [...] → [..., D] float32."""
        return _signs(codes, self.dim)

    def loss(self, means: dict[str, Array]) -> Array:
        """Returns β·‖z − sg[q]‖² + w·(E[H(q(z))] − γ·H(E[q(z)])), E over the global batch."""
        entropy = means["entropy"] - self.diversity * self._batch_entropy(means)
        return self.commitment * means["commitment"] + self.entropy_weight * entropy

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns `counts` [K] over these examples, padding left out."""
        del step
        return {"counts": vectors.count(quantized.codes, batch["mask"], self.num_codes)}

    def update(self, sums: dict[str, Array]) -> None:
        """Does nothing: there is no codebook."""

    def metrics(self, means: dict[str, Array]) -> dict[str, Array]:
        """Returns the commitment distance, and both entropies in nats."""
        return {
            "commitment_loss": means["commitment"],
            "sample_entropy": means["entropy"],
            "batch_entropy": self._batch_entropy(means),
        }

    def _soft(self, z: Array) -> dict[str, Array]:
        """Returns the entropy of the soft choice q(c|z) ∝ exp(−‖z − c‖²/τ), and its image mean.

        In q the dimensions are independent, p(1|z_i) = σ(4·z_i/τ), so their entropies add up. The
        mean of q over vectors is not of this form, so a group stores a probability for each code.
        """
        logits = 4.0 * z / self.temperature
        entropy = jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)
        terms = {"entropy": vectors.example_mean(entropy.sum(axis=-1))}
        for first in range(0, self.dim, self.group_size):
            group = logits[..., first : first + self.group_size]
            signs = _signs(jnp.arange(2 ** group.shape[-1]), group.shape[-1])
            scores = jnp.matmul(group, signs.T / 2.0, precision=lax.Precision.HIGHEST)
            terms[f"probabilities_{first}"] = jax.nn.softmax(scores).mean(axis=(1, 2))
        return terms

    def _batch_entropy(self, means: dict[str, Array]) -> Array:
        groups = [value for name, value in means.items() if name.startswith("probabilities_")]
        mean = jnp.concatenate(groups)
        # The bound keeps the gradient finite: that of p·log p is infinite at 0.
        return -(mean * jnp.log(jnp.maximum(mean, 1e-12))).sum()


def _signs(codes: Array, num_bits: int) -> Array:
    return (2 * (codes[..., None] >> np.arange(num_bits, dtype=np.int32) & 1) - 1).astype(
        jnp.float32
    )
