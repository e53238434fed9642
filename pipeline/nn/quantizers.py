"""Quantisers by name: `vq`, `residual_vq`, `fsq`, `lfq`, all with one interface.

Called on encodings [B, h, w, D], one returns a `Quantized`. `lookup` gives codes' vectors; `loss`
is its part of the objective, from the means of its terms; `statistics` is what to add up over the
global batch, and `update` takes the sums. `num_codes` is K, `shape` what a vector's code has as
axes: (), or (Q,) where it is made of Q codes; `statistics["counts"]` is then [Q, K], else [K].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.nn import vectors
from pipeline.nn.scalar_quantizers import FSQ, LFQ
from pipeline.nn.vector_quantizer import Quantized, VectorQuantizer
from pipeline.runtime import errors, registry

NAMES = ("vq", "residual_vq", "fsq", "lfq")


class ResidualVQ(nnx.Module):
    """Q vector quantisers in a row, each of what the ones before it left over.

    Zeghidour et al. 2021 (arXiv:2107.03312), algorithm 1; Lee et al. 2022 (arXiv:2203.01941), eq. 4
    and, for the loss, 9.
    """

    def __init__(self, config: Any, dim: int, num_sites: int, *, rngs: nnx.Rngs):
        """Builds `quantizer.num_quantizers` of them; else as `VectorQuantizer`."""
        depth = config.model.quantizer.num_quantizers
        self.stages = nnx.List(
            VectorQuantizer(config, dim, num_sites, stream=i, rngs=rngs) for i in range(depth)
        )
        self.num_codes, self.shape = self.stages[0].num_codes, (depth,)

    def __call__(self, z: Array) -> Quantized:
        """Quantises z, [B, h, w, D], to codes [B, h, w, Q]."""
        residual, parts = z, []
        for stage in self.stages:
            parts.append(stage(residual))
            residual = residual - lax.stop_gradient(parts[-1].values)
        codes = jnp.stack([part.codes for part in parts], axis=-1)
        terms = jax.tree.map(lambda *values: sum(values), *[part.terms for part in parts])
        values = self.stages[0].gradient(z, lax.stop_gradient(self.lookup(codes)))
        return Quantized(values, codes, terms, [part.inputs for part in parts])

    def lookup(self, codes: Array) -> Array:
        """Returns the sum of the Q codes' vectors, always in one order: [..., Q] → [..., D]."""
        parts = [stage.lookup(codes[..., i]) for i, stage in enumerate(self.stages)]
        return functools.reduce(jnp.add, parts)

    def loss(self, means: dict[str, Array]) -> Array:
        """Returns the sum of the quantisers' losses."""
        return self.stages[0].loss(means)

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns the statistics of the quantisers, stacked: `counts` [Q, K] and so on."""
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
        """Returns the summed distance, the highest age and all restarts."""
        parts = [stage.metrics(means) for stage in self.stages]
        return parts[0] | {
            "code_age": jnp.stack([part["code_age"] for part in parts]).max(),
            "code_restarts": jnp.stack([part["code_restarts"] for part in parts]).sum(),
        }


def dim(config: Any) -> int:
    """Returns D, the dimensions of the vectors to quantise, and checks `config.model.quantizer`.

    `vq` and `residual_vq` take `model.latent_dim`; `fsq` has as many as levels, `lfq` log₂ K.

    Raises:
        InputError: a value that can't work.
    """
    section = config.model.quantizer
    _check(section)
    if section.name == "fsq":
        if not section.levels or min(section.levels) < 2:
            raise errors.InputError(
                f"config.model.quantizer.levels={section.levels} must hold numbers from 2 on"
            )
        return len(section.levels)
    if section.name == "lfq":
        bits = section.num_codes.bit_length() - 1
        if section.num_codes != 2**bits or not 1 <= bits <= 30:
            raise errors.InputError(
                f"config.model.quantizer.num_codes={section.num_codes} must be a power of 2, from "
                "2 to 2^30, for lfq"
            )
        return bits
    errors.check_range("config.model.latent_dim", config.model.latent_dim, 1)
    return config.model.latent_dim


def make(config: Any, num_sites: int, *, rngs: nnx.Rngs) -> Any:
    """Returns the quantiser that `config.model.quantizer` names, for h·w = `num_sites` vectors."""
    section, size = config.model.quantizer, dim(config)
    if section.name == "fsq":
        return FSQ(section.levels)
    if section.name == "lfq":
        return LFQ(section, size)
    _check_restart_usage(section, config.batch_size * num_sites)
    kind = ResidualVQ if section.name == "residual_vq" else VectorQuantizer
    return kind(config, size, num_sites, rngs=rngs)


def _check(section: Any) -> None:
    """Raises an InputError where a field of `config.model.quantizer` can't work."""
    field = "model.quantizer"
    registry.check(section.name, NAMES, field=f"{field}.name")
    registry.check(section.codebook, ("ema", "loss"), field=f"{field}.codebook")
    registry.check(section.init, ("uniform", "data"), field=f"{field}.init")
    registry.check(section.gradient, vectors.GRADIENTS, field=f"{field}.gradient")
    limits = dict.fromkeys(("num_codes", "candidates", "num_quantizers", "entropy_bits"), 1)
    nonnegative = (
        "restart_steps",
        "restart_usage",
        "chunk",
        "commitment",
        "entropy_weight",
        "diversity",
    )
    limits |= dict.fromkeys(nonnegative, 0)
    for name, least in limits.items():
        errors.check_range(f"config.{field}.{name}", section[name], least)
    if section.chunk and section.num_codes % section.chunk:
        raise errors.InputError(
            f"config.{field}.chunk={section.chunk} must divide num_codes={section.num_codes}"
        )
    if not (0 <= section.decay < 1 and min(section.epsilon, section.temperature) > 0):
        raise errors.InputError(
            f"config.{field}.decay={section.decay} must lie in [0, 1), epsilon="
            f"{section.epsilon} and temperature={section.temperature} above 0"
        )


def _check_restart_usage(section: Any, num_vectors: int) -> None:
    """Raises an InputError where restarts by use can't work, or would never end.

    Some codes are always used less than the average; and a restarted code starts at twice the
    threshold, which is to be no more than its fair share of the vectors.
    """
    field, usage = "config.model.quantizer.restart_usage", section.restart_usage
    if usage and section.codebook == "loss":
        raise errors.InputError(
            f"{field}={usage} needs codebook='ema', whose moving averages count the use of codes: "
            "with codebook='loss' leave it 0 and set restart_steps"
        )
    limit = num_vectors / section.num_codes / 2
    if usage > limit:
        raise errors.InputError(
            f"{field}={usage} must be at most {limit:g}, half of a code's average use of "
            f"{num_vectors} vectors a step / num_codes={section.num_codes}: above, codes would "
            "restart for ever"
        )
