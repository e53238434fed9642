"""Vectors and codes: nearest codes, sums by code, gradients past the choice of a code.

All arithmetic is float32 at the highest precision, because the default precision of TPUs changes
which code is nearest. Some arrays have an entry for each vector and each code. TPUs and CPUs
compute them whole, because XLA fuses them with the code that reads them. GPUs write them to memory,
so there large ones are computed in chunks of codes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

LARGE = 2**28  # bytes of float32 entries that a GPU may write at a time
MOST_CHUNKS = 64  # each chunk is one iteration of a loop


def nearest(z: Array, codes: Array, *, chunk: int = 0) -> Array:
    """Returns argmin_k ‖z − e_k‖² of each vector, [...] int32; the first of equally near codes.

    Args:
        z: [..., D].
        codes: e, [K, D].
        chunk: number of codes whose distances, [..., chunk], are in memory at a time. 0 chooses by
            platform.
    """
    # The choice of a code has no gradient; `straight_through` and `rotation` pass one around it.
    z, codes = lax.stop_gradient((z, codes))
    return _in_chunks(_nearest, z, codes, chunk, codes.shape[0], z.size // z.shape[-1])


def _nearest(z: Array, codes: Array, chunk: int) -> Array:
    def nearest_of(part):
        # ‖z‖² is left out: it is the same for all codes, and adding it would only lose digits.
        products = jnp.matmul(z, part.T, precision=lax.Precision.HIGHEST)
        distances = jnp.square(part).sum(axis=-1) - 2.0 * products
        index = lax.platform_dependent(distances, cpu=_argmin_by_search, default=_argmin)
        return distances.min(axis=-1), index

    parts = codes.reshape(-1, chunk, codes.shape[-1])

    def body(best, part):
        (distance, index), (first, codes) = best, part
        other, where = nearest_of(codes)
        # Strictly closer, so that of equal distances the earlier chunk's code stays.
        closer = other < distance
        return (jnp.where(closer, other, distance), jnp.where(closer, first + where, index)), None

    # The first chunk starts the scan, so that no placeholder is ever the nearest code.
    starts = jnp.arange(chunk, codes.shape[0], chunk, dtype=jnp.int32)
    return lax.scan(body, nearest_of(parts[0]), (starts, parts[1:]))[0][1]


def _argmin(distances: Array) -> Array:
    return distances.argmin(axis=-1).astype(jnp.int32)


def _argmin_by_search(distances: Array) -> Array:
    """Does argmin as two reductions, which XLA's CPU compiler vectorises: 3 to 5 times as fast."""
    # If all distances are NaN, none equals the lowest. The last code is then a valid index.
    last = distances.shape[-1] - 1
    where = lax.broadcasted_iota(jnp.int32, distances.shape, distances.ndim - 1)
    lowest = distances.min(axis=-1, keepdims=True)
    return jnp.where(distances == lowest, where, last).min(axis=-1)


def sum_by_code(z: Array, codes: Array, num_codes: int, *, chunk: int = 0) -> Array:
    """Returns the sum of each code's vectors, [K, D].

    It is a product with one-hot rows. On GPUs a scatter adds in any order, so a resumed run would
    differ.

    Args:
        z: [B, ..., D].
        codes: [B, ...].
        num_codes: K.
        chunk: number of codes whose sums by example, [B, chunk, D], are in memory at a time. 0
            chooses by platform.
    """

    def summed(z, codes, chunk):
        def part(first):
            chosen = jax.nn.one_hot(codes - first, chunk, axis=1)  # zeros for codes of other parts
            # One product per example, then their sum: a thousand nearly equal vectors that are
            # added one by one lose two digits more.
            return jnp.matmul(chosen, z, precision=lax.Precision.HIGHEST).sum(axis=0)

        return lax.map(part, jnp.arange(0, num_codes, chunk)).reshape(num_codes, -1)

    codes, z = codes.reshape(codes.shape[0], -1), z.reshape(z.shape[0], -1, z.shape[-1])
    return _in_chunks(summed, z, codes, chunk, num_codes, codes.size)


def _in_chunks(
    function: Callable, z: Array, codes: Array, chunk: int, num_codes: int, num_vectors: int
) -> Array:
    """Returns `function(z, codes, chunk)`; if `chunk` is 0, with the platform's chunk size."""
    # A chunk size that the caller sets applies to every platform.
    if chunk:
        return function(z, codes, chunk)
    whole = lambda z, codes: function(z, codes, num_codes)  # noqa: E731
    fitting = chunk_on_gpus(num_codes, num_vectors)
    if fitting == num_codes:
        return whole(z, codes)
    parts = lambda z, codes: function(z, codes, fitting)  # noqa: E731
    return lax.platform_dependent(z, codes, cuda=parts, rocm=parts, default=whole)


def chunk_on_gpus(num_codes: int, num_vectors: int) -> int:
    """Returns a GPU's chunk size: the largest that divides K and keeps N·chunk entries small.

    If no such size is found within MOST_CHUNKS chunks, it is K.
    """
    for chunks in range(1, MOST_CHUNKS + 1):
        if num_codes % chunks == 0 and 4 * num_vectors * num_codes // chunks <= LARGE:
            return num_codes // chunks
    return num_codes


def count(codes: Array, mask: Array, num_codes: int) -> Array:
    """Returns how often each code occurs in the examples whose `mask` is 1, [K] float32.

    Args:
        codes: [B, h, w].
        mask: [B].
        num_codes: K.
    """
    # A scatter is safe here: sums of whole numbers are exact in any order.
    weights = jnp.broadcast_to(mask[:, None, None], codes.shape)
    return jax.ops.segment_sum(weights.ravel(), codes.ravel(), num_codes)


def example_mean(values: Array) -> Array:
    """Returns the mean over all axes except the first, [B]."""
    return values.mean(axis=tuple(range(1, values.ndim)))


def unit(x: Array) -> Array:
    """Returns x/‖x‖ along the last axis; a zero vector stays zero."""
    return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-12))


@jax.custom_vjp
def straight_through(z: Array, values: Array) -> Array:
    """Returns `values`; z receives the gradient of `values` unchanged.

    The usual form z + sg[values − z] equals `values` only up to rounding.
    """
    del z
    return values


@jax.custom_vjp
def rotation(z: Array, values: Array) -> Array:
    """Returns `values`, treated as z rotated and rescaled; the gradient is rotated back.

    Fifty et al. 2024 (arXiv:2410.06424), eq. 2–4: q̃ = sg[λR]·z with λ = ‖q‖/‖z‖ and
    R = I − 2rrᵀ + 2q̂ẑᵀ, r = (ẑ + q̂)/‖ẑ + q̂‖. So z receives λRᵀ·g.
    """
    del z
    return values


def _turned_back(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    z, q = saved
    dot = lambda a, b: (a * b).sum(axis=-1, keepdims=True)  # noqa: E731
    scale = jnp.sqrt(dot(q, q) / jnp.maximum(dot(z, z), 1e-12))
    z, q = unit(z), unit(q)
    r = unit(z + q)
    # Rᵀ = I − 2rrᵀ + 2ẑq̂ᵀ is applied by dot products: as a matrix it would be [..., D, D].
    return scale * (g - 2.0 * dot(r, g) * r + 2.0 * dot(q, g) * z), jnp.zeros_like(g)


# `values` get a zero gradient: a codebook learns from its own loss term or from moving averages.
straight_through.defvjp(lambda z, q: (q, None), lambda _, g: (g, jnp.zeros_like(g)))
rotation.defvjp(lambda z, q: (q, (z, q)), _turned_back)
GRADIENTS = {"straight_through": straight_through, "rotation": rotation}
