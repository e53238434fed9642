"""What every quantiser returns."""

from typing import Any, NamedTuple

from jax import Array


class Quantized(NamedTuple):
    """The result of quantising encodings z, [B, h, w, D]."""

    values: Array  # [B, h, w, D] float32, the codes' vectors, whose gradient goes to z
    codes: Array  # [B, h, w] int32; [B, h, w, Q] with Q codebooks
    terms: dict[str, Array]  # per-example terms of the objective, [B, ...]
    inputs: Any  # the quantised vectors, [B, h, w, D]; with Q codebooks a list of Q
