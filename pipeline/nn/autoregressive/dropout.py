"""Dropout whose draws belong to an example: the same on any number of devices."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from pipeline.nn import streams

Drop = Callable[[Array], Array]
LEVELS = 2**8  # of the probability: draws are bytes, because random bits are slow on CPUs


def none(x: Array) -> Array:
    """Drops nothing."""
    return x


def make(rate: float, keys: Array) -> Drop:
    """Returns a function that drops a share `rate` of the values, and scales up the others.

    Srivastava et al. 2014. Each call draws anew. The rate is rounded to a multiple of 1/256.

    Args:
        rate: in [0, 1).
        keys: of the examples, [B].

    Returns:
        A function of features [B, ...], or of [B·T, ...] with T rows for each example.
    """
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    if not dropped:
        return none
    calls = 0

    def drop(x: Array) -> Array:
        nonlocal calls
        own = streams.within(keys, streams.DROPOUT + calls)
        calls += 1
        shape = x.shape[0] // keys.shape[0], *x.shape[1:]
        kept = jax.vmap(lambda key: _bytes(key, shape))(own).reshape(x.shape) >= dropped
        scale, zero = (jnp.asarray(v, x.dtype) for v in (LEVELS / (LEVELS - dropped), 0))
        # A choice comes last, in the gradient too. Where a product meets a sum, the compiler may
        # round only once, or not: bits would depend on what it puts together.
        return jnp.where(kept, jnp.where(kept, x, zero) * scale, zero)

    return drop


def _bytes(key: Array, shape: tuple[int, ...]) -> Array:
    """Returns random bytes, four from each word: JAX itself computes a word for each byte."""
    num = math.prod(shape)
    words = jax.random.bits(key, (math.ceil(num / 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:num].reshape(shape)
