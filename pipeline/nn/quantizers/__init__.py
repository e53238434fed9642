"""Quantisers by name, all with one interface.

A quantiser maps encodings [B, h, w, D] to a `Quantized`. Its methods and attributes are:

- `lookup` returns the vectors of codes.
- `loss` returns the quantiser's part of the objective, from the means of its terms.
- `statistics` returns sums over a shard, which the caller adds up over the global batch.
- `update` moves the codebook by those global sums.
- `num_codes` is K. `shape` is () if a vector has one code, and (Q,) if it has Q codes.
  `statistics(…)["counts"]` is [K] or [Q, K] accordingly.
"""

from typing import Any

from flax import nnx

from pipeline.nn.quantizers import vectors
from pipeline.nn.quantizers.finite_scalar import FSQ, ResidualFSQ
from pipeline.nn.quantizers.lookup_free import LFQ
from pipeline.nn.quantizers.multi_codebook import GroupedVQ, ResidualVQ
from pipeline.nn.quantizers.sim_vq import SimVQ
from pipeline.nn.quantizers.vector_quantizer import VectorQuantizer
from pipeline.runtime import errors, registry

NAMES = ("vq", "residual_vq", "grouped_vq", "fsq", "residual_fsq", "lfq", "sim_vq")


def dim(config: Any) -> int:
    """Returns D, the dimensions of the vectors to quantise.

    D is the number of levels for `fsq` and `residual_fsq`, log₂ K for `lfq`, and else
    `model.latent_dim`.

    Raises:
        InputError: a value cannot work.
    """
    section = config.model.quantizer
    registry.check(section.name, NAMES, field="model.quantizer.name")
    if section.name in ("fsq", "residual_fsq"):
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
    """Returns the quantiser that `config.model.quantizer` names, for `num_sites` = h·w vectors.

    Raises:
        InputError: a value of `config.model.quantizer` cannot work.
    """
    section, size = config.model.quantizer, dim(config)
    if section.name == "fsq":
        return FSQ(section.levels)
    if section.name == "residual_fsq":
        _check_depth(section)
        return ResidualFSQ(section.levels, section.num_quantizers)
    if section.name == "lfq":
        _check_numbers(section, entropy_bits=1, commitment=0, entropy_weight=0, diversity=0)
        if not section.temperature > 0:
            raise errors.InputError(
                f"config.model.quantizer.temperature={section.temperature} must be above 0"
            )
        return LFQ(section, size)
    _check_codes(section)
    if section.name == "sim_vq":
        return SimVQ(section, size, rngs=rngs)
    if config.batch_size * num_sites >= 2**31:  # positions of vectors are int32
        raise errors.InputError(
            f"config.batch_size={config.batch_size} must be at most {(2**31 - 1) // num_sites}: an "
            f"image has {num_sites} vectors, and a batch fewer than 2^31"
        )
    _check_learning(section)
    _check_restart_usage(section, config.batch_size * num_sites)
    if section.name == "vq":
        return VectorQuantizer(config, size, num_sites, rngs=rngs)
    _check_numbers(section, num_quantizers=1)
    if section.name == "residual_vq":
        return ResidualVQ(config, size, num_sites, rngs=rngs)
    if size % section.num_quantizers:
        raise errors.InputError(
            f"config.model.quantizer.num_quantizers={section.num_quantizers} must divide "
            f"config.model.latent_dim={size} for grouped_vq: every group has as many dimensions"
        )
    return GroupedVQ(config, size, num_sites, rngs=rngs)


def _check_numbers(section: Any, **least: int) -> None:
    """Raises an InputError if a number of `config.model.quantizer` is less than named here."""
    for name, smallest in least.items():
        errors.check_range(f"config.model.quantizer.{name}", section[name], smallest)


def _check_depth(section: Any) -> None:
    """Raises an InputError if float32 does not resolve the levels of the last stage."""
    _check_numbers(section, num_quantizers=1)
    if max(section.levels) ** section.num_quantizers > 2**23:
        raise errors.InputError(
            f"config.model.quantizer.num_quantizers={section.num_quantizers} is too many for "
            f"levels={section.levels}: levels to this power must be at most 2^23, for float32"
        )


def _check_codes(section: Any) -> None:
    """Raises an InputError if a field of what chooses the nearest code cannot work."""
    field = "model.quantizer"
    registry.check(section.gradient, vectors.GRADIENTS, field=f"{field}.gradient")
    _check_numbers(section, num_codes=1, chunk=0, commitment=0)
    if section.chunk and section.num_codes % section.chunk:
        raise errors.InputError(
            f"config.{field}.chunk={section.chunk} must divide num_codes={section.num_codes}"
        )


def _check_learning(section: Any) -> None:
    """Raises an InputError if a field of how single codes learn cannot work."""
    field = "model.quantizer"
    registry.check(section.codebook, ("ema", "loss"), field=f"{field}.codebook")
    registry.check(section.init, ("uniform", "data"), field=f"{field}.init")
    _check_numbers(section, restart_steps=0, restart_usage=0)
    if section.codebook == "ema" and not (0 <= section.decay < 1 and section.epsilon > 0):
        raise errors.InputError(
            f"config.{field}.decay={section.decay} must lie in [0, 1), epsilon={section.epsilon} "
            "above 0"
        )


def _check_restart_usage(section: Any, num_vectors: int) -> None:
    """Raises an InputError if restarts by use cannot work, or would never end.

    Some codes are always used less than the average. A restarted code starts at twice the
    threshold, which must not exceed its fair share of the vectors.
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
            "restart forever"
        )
