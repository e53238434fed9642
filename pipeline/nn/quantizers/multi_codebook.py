"""Q vector quantisers for one vector: of its residuals (`ResidualVQ`), or of its parts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.nn.quantizers.quantized import Quantized
from pipeline.nn.quantizers.vector_quantizer import VectorQuantizer


class MultiCodebook(nnx.Module):
    """Q vector quantisers, each with a codebook and statistics of its own."""

    def __init__(self, config: Any, dim: int, num_sites: int, *, rngs: nnx.Rngs):
        """Builds `quantizer.num_quantizers` stages from the arguments of a `VectorQuantizer`."""
        depth = config.model.quantizer.num_quantizers
        self.stages = nnx.List(
            VectorQuantizer(config, dim, num_sites, stream=i, rngs=rngs) for i in range(depth)
        )
        self.num_codes, self.shape = self.stages[0].num_codes, (depth,)

    def loss(self, means: dict[str, Array]) -> Array:
        """Returns the loss of one quantiser, for terms that are already put together."""
        # The loss is linear in the terms.
        return self.stages[0].loss(means)

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns the statistics of all quantisers, stacked: `counts` [Q, K] and so on."""
        parts = []
        for i, stage in enumerate(self.stages):
            part = quantized._replace(codes=quantized.codes[..., i], inputs=quantized.inputs[i])
            parts.append(stage.statistics(part, batch, step))
        return jax.tree.map(lambda *values: jnp.stack(values), *parts)

    def update(self, sums: dict[str, Array]) -> None:
        """Moves every codebook."""
        for i, stage in enumerate(self.stages):
            stage.update({name: value[i] for name, value in sums.items()})

    def metrics(self, means: dict[str, Array]) -> dict[str, Array]:
        """Returns the distance, the highest code age and the total of restarts."""
        parts = [stage.metrics(means) for stage in self.stages]
        return parts[0] | {
            "code_age": jnp.stack([part["code_age"] for part in parts]).max(),
            "code_restarts": jnp.stack([part["code_restarts"] for part in parts]).sum(),
        }


class ResidualVQ(MultiCodebook):
    """Q vector quantisers in sequence, each of which quantises the residual of those before it.

    Zeghidour et al. 2021 (arXiv:2107.03312), algorithm 1; Lee et al. 2022 (arXiv:2203.01941), eq. 4
    and, for the loss, eq. 9: the terms are sums over the quantisers.
    """

    def __call__(self, z: Array) -> Quantized:
        """Quantises z, [B, h, w, D], to codes [B, h, w, Q]."""
        residual, parts = z, []
        for stage in self.stages:
            parts.append(stage(residual))
            # Without stop_gradient the straight-through gradient of `values` would cancel that of
            # `residual`, and the commitment of later stages would not reach the encoder.
            residual = residual - lax.stop_gradient(parts[-1].values)
        codes = jnp.stack([part.codes for part in parts], axis=-1)
        terms = jax.tree.map(lambda *values: sum(values), *[part.terms for part in parts])
        values = self.stages[0].gradient(z, lax.stop_gradient(self.lookup(codes)))
        return Quantized(values, codes, terms, [part.inputs for part in parts])

    def lookup(self, codes: Array) -> Array:
        """Returns the sum of the Q codes' vectors: [..., Q] → [..., D] float32."""
        # Always in the same order, so that training and decoding get the same bits.
        parts = [stage.lookup(codes[..., i]) for i, stage in enumerate(self.stages)]
        return functools.reduce(jnp.add, parts)


class GroupedVQ(MultiCodebook):
    """Q vector quantisers side by side: number i quantises the i-th D/Q of the D dimensions.

    Product quantisation, q(z) = (q_1(u_1(z)), …, q_Q(u_Q(z))) of Jégou et al. 2011
    (doi:10.1109/TPAMI.2010.57), eq. 8; the groups of vq-wav2vec (Baevski et al. 2020,
    arXiv:1910.05453, section 3.3). K^Q vectors take the memory of K. The terms are means over the
    groups, so as with one codebook they are means over all D dimensions.
    """

    def __init__(self, config: Any, dim: int, num_sites: int, *, rngs: nnx.Rngs):
        """Builds `quantizer.num_quantizers` quantisers of D/Q dimensions each."""
        super().__init__(config, dim // config.model.quantizer.num_quantizers, num_sites, rngs=rngs)

    def __call__(self, z: Array) -> Quantized:
        """Quantises z, [B, h, w, D], to codes [B, h, w, Q]."""
        groups = jnp.split(z, len(self.stages), axis=-1)
        parts = [stage(group) for stage, group in zip(self.stages, groups, strict=True)]
        values = jnp.concatenate([part.values for part in parts], axis=-1)
        codes = jnp.stack([part.codes for part in parts], axis=-1)
        mean = lambda *terms: sum(terms) / len(parts)  # noqa: E731
        terms = jax.tree.map(mean, *[part.terms for part in parts])
        return Quantized(values, codes, terms, [part.inputs for part in parts])

    def lookup(self, codes: Array) -> Array:
        """Returns the Q codes' vectors side by side: [..., Q] → [..., D] float32."""
        parts = [stage.lookup(codes[..., i]) for i, stage in enumerate(self.stages)]
        return jnp.concatenate(parts, axis=-1)
