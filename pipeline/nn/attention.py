"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

Weights are normalised by a product with 1/Σ, not by a quotient. Of a quotient the compiler may or
may not make such a product, so its bits could differ between programs on one and several devices.
"""

import math

import jax.numpy as jnp
from jax import Array, lax


def attend(queries: Array, keys: Array, values: Array, *, seen: Array | None = None) -> Array:
    """Returns the values at the places that each query sees, mixed by softmax(q·k / √dim).

    Args:
        queries: [B, T, heads, dim].
        keys: [B, S, heads, dim].
        values: as `keys`.
        seen: which of the S places each query sees, bool [T, S]; at least one. None: all.

    Returns:
        [B, T, heads, dim] in the dtype of the queries; the softmax is computed in float32.
    """
    scale = jnp.asarray(1.0 / math.sqrt(queries.shape[-1]), queries.dtype)
    logits = jnp.einsum("bthd,bshd->bhts", queries * scale, keys).astype(jnp.float32)
    if seen is not None:
        logits = jnp.where(seen, logits, -jnp.inf)
    # The largest logit only keeps exp from overflowing: the result does not depend on it.
    weights = jnp.exp(logits - lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    weights = weights * (1.0 / weights.sum(axis=-1, keepdims=True))
    return jnp.einsum("bhts,bshd->bthd", weights.astype(values.dtype), values)
