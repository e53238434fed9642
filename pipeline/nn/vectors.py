"""Vectors and codes: nearest codes, sums by code, gradients past the choice of a code.

All arithmetic is float32 at the highest precision: the default of TPUs flips codes. What has an
entry for each vector and each code is held whole on TPUs and CPUs, which merge it with what uses
it; GPUs write it to memory, and so take the codes in chunks where it is large.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

LARGE = 2**28  # bytes of float32 entries that a GPU may write at a time
MOST_CHUNKS = 64


def nearest(z: Array, codes: Array, *, chunk: int = 0) -> Array:
    """Returns argmin_k ‖z − e_k‖² of each vector, [...] int32; of equals the first.

    Args:
        z: [..., D].
        codes: e, [K, D].
        chunk: codes whose distances are in memory at a time, [..., chunk]; 0: the platform's way.
    """
    z, codes = lax.stop_gradient((z, codes))
    return _in_chunks(_nearest, z, codes, chunk, codes.shape[0], z.size // z.shape[-1])


def _nearest(z: Array, codes: Array, chunk: int) -> Array:
    def nearest_of(part):
        # ‖z‖² is the same for all codes, and would only cost digits.
        products = jnp.matmul(z, part.T, precision=lax.Precision.HIGHEST)
        distances = jnp.square(part).sum(axis=-1) - 2.0 * products
        index = lax.platform_dependent(distances, cpu=_argmin_by_search, default=_argmin)
        return distances.min(axis=-1), index

    parts = codes.reshape(-1, chunk, codes.shape[-1])

    def body(best, part):
        (distance, index), (first, codes) = best, part
        other, where = nearest_of(codes)
        closer = other < distance
        return (jnp.where(closer, other, distance), jnp.where(closer, first + where, index)), None

    starts = jnp.arange(chunk, codes.shape[0], chunk, dtype=jnp.int32)
    return lax.scan(body, nearest_of(parts[0]), (starts, parts[1:]))[0][1]


def _argmin(distances: Array) -> Array:
    return distances.argmin(axis=-1).astype(jnp.int32)


def _argmin_by_search(distances: Array) -> Array:
    """Two reductions that XLA's CPU form vectorises, unlike argmin: 3 to 5 times as fast."""
    last = distances.shape[-1] - 1  # stands where all are NaN
    where = lax.broadcasted_iota(jnp.int32, distances.shape, distances.ndim - 1)
    lowest = distances.min(axis=-1, keepdims=True)
    return jnp.where(distances == lowest, where, last).min(axis=-1)


def sum_by_code(z: Array, codes: Array, num_codes: int, *, chunk: int = 0) -> Array:
    """Returns the sum of each code's vectors, [K, D].

    A product with one-hot rows: on GPUs a scatter adds in any order, and a resumed run would
    differ. One product an example, and then their sum: added one by one, a thousand
    nearly equal vectors lose two digits more.

    Args:
        z: [B, ..., D].
        codes: [B, ...].
        num_codes: K.
        chunk: codes whose sums are in memory for every example at a time, [B, chunk, D]; 0: the
            platform's way.
    """

    def summed(z, codes, chunk):
        def part(first):
            chosen = jax.nn.one_hot(codes - first, chunk, axis=1)  # zeros for codes of other parts
            return jnp.matmul(chosen, z, precision=lax.Precision.HIGHEST).sum(axis=0)

        return lax.map(part, jnp.arange(0, num_codes, chunk)).reshape(num_codes, -1)

    codes, z = codes.reshape(codes.shape[0], -1), z.reshape(z.shape[0], -1, z.shape[-1])
    return _in_chunks(summed, z, codes, chunk, num_codes, codes.size)


def _in_chunks(
    function: Callable, z: Array, codes: Array, chunk: int, num_codes: int, num_vectors: int
) -> Array:
    """Returns `function(z, codes, chunk)`; where `chunk` is 0, with the platform's."""
    if chunk:
        return function(z, codes, chunk)
    whole = lambda z, codes: function(z, codes, num_codes)  # noqa: E731
    fitting = chunk_on_gpus(num_codes, num_vectors)
    if fitting == num_codes:
        return whole(z, codes)
    parts = lambda z, codes: function(z, codes, fitting)  # noqa: E731
    return lax.platform_dependent(z, codes, cuda=parts, rocm=parts, default=whole)


def chunk_on_gpus(num_codes: int, num_vectors: int) -> int:
    """Returns how many codes at a time: the most that divide K and keep N·chunk entries small."""
    for chunks in range(1, MOST_CHUNKS + 1):
        if num_codes % chunks == 0 and 4 * num_vectors * num_codes // chunks <= LARGE:
            return num_codes // chunks
    return num_codes


def count(codes: Array, mask: Array, num_codes: int) -> Array:
    """Returns how often each code occurs in the examples of `mask` 1, [K] float32.

    Whole numbers, so exact in whatever order they are added.

    Args:
        codes: [B, h, w].
        mask: [B].
        num_codes: K.
    """
    weights = jnp.broadcast_to(mask[:, None, None], codes.shape)
    return jax.ops.segment_sum(weights.ravel(), codes.ravel(), num_codes)


def example_mean(values: Array) -> Array:
    """Returns the mean over all axes but the first, [B]."""
    return values.mean(axis=tuple(range(1, values.ndim)))


def unit(x: Array) -> Array:
    """Returns x/‖x‖ along the last axis; 0 stays 0."""
    return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-12))


@jax.custom_vjp
def straight_through(z: Array, values: Array) -> Array:
    """Returns `values`, whose gradient goes to z as it is.

    Not z + sg[values − z], which equals `values` only up to rounding.
    """
    del z
    return values


@jax.custom_vjp
def rotation(z: Array, values: Array) -> Array:
    """Returns `values`, seen as z rotated and rescaled: the gradient is turned back with it.

    Fifty et al. 2024 (arXiv:2410.06424), eq. 2–4: q̃ = sg[λR]·z with λ = ‖q‖/‖z‖ and
    R = I − 2rrᵀ + 2q̂ẑᵀ, r = (ẑ + q̂)/‖ẑ + q̂‖; z receives λRᵀ·g.
    """
    del z
    return values


def _turned_back(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    z, q = saved
    dot = lambda a, b: (a * b).sum(axis=-1, keepdims=True)  # noqa: E731
    scale = jnp.sqrt(dot(q, q) / jnp.maximum(dot(z, z), 1e-12))
    z, q = unit(z), unit(q)
    r = unit(z + q)
    return scale * (g - 2.0 * dot(r, g) * r + 2.0 * dot(q, g) * z), jnp.zeros_like(g)


straight_through.defvjp(lambda z, q: (q, None), lambda _, g: (g, jnp.zeros_like(g)))
rotation.defvjp(lambda z, q: (q, (z, q)), _turned_back)
GRADIENTS = {"straight_through": straight_through, "rotation": rotation}
