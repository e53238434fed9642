"""Blocks of pixels: rearrangements that turn a convolution of stride s into one of stride 1.

Each s×s block of an image's pixels becomes one pixel of s²·C channels. A k×k kernel becomes a
kernel of n×n blocks, n = ⌈k/s⌉. `patches` makes each window of n×n blocks a row of a product, and
`overlap_add` is its transpose. If s does not divide k, some pixels of a block have fewer than n²
taps; `phases` and `interleave` compute each pixel of a block separately.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax import Array

from pipeline.nn import looped_convolutions


def geometry(stride: int, kernel: Array) -> tuple[int, int, int]:
    """Returns n, SAME's padding before the image, and the padding after it up to whole blocks."""
    k = kernel.shape[0]
    n, low = -(-k // stride), max(k - stride, 0) // 2
    return n, low, (n - 1) * stride - low


def same_padding(stride: int, k: int, sides: Sequence[int]) -> list[tuple[int, int]]:
    """Returns what SAME pads before and after each side, for a k×k kernel."""
    totals = [max((-(-side // stride) - 1) * stride + k - side, 0) for side in sides]
    return [(total // 2, total - total // 2) for total in totals]


def whole(stride: int, kernel: Array, x: Array) -> Array:
    """Pads [B, H, W, C] to whole blocks, so that SAME has the same windows as before."""
    given = same_padding(stride, kernel.shape[0], x.shape[1:3])
    fit = same_padding(
        stride, kernel.shape[0], [-(-side // stride) * stride for side in x.shape[1:3]]
    )
    before = [a[0] - b[0] for a, b in zip(given, fit, strict=True)]
    after = [-side % stride - first for side, first in zip(x.shape[1:3], before, strict=True)]
    return jnp.pad(x, [(0, 0), *zip(before, after, strict=True), (0, 0)])


def to_blocks(s: int, low: int, high: int, x: Array) -> Array:
    """Space to depth: [B, H, W, C] → [B, h+n-1, w+n-1, s·s·C]."""
    x = jnp.pad(x, [(0, 0), (low, high), (low, high), (0, 0)])
    b, h, w, c = x.shape
    return x.reshape(b, h // s, s, w // s, s * c).swapaxes(2, 3).reshape(b, h // s, w // s, -1)


def from_blocks(s: int, low: int, high: int, blocks: Array) -> Array:
    """Depth to space: [B, h+n-1, w+n-1, s·s·C] → [B, H, W, C]."""
    b, h, w, c = blocks.shape
    x = blocks.reshape(b, h, w, s, c // s).swapaxes(2, 3).reshape(b, h * s, w * s, -1)
    return x[:, low : h * s - high, low : w * s - high]


def kernel_to_blocks(s: int, kernel: Array) -> Array:
    """[k, k, C_in, C_out] → [n, n, s·s·C_in, C_out], padded with zeros if s does not divide k."""
    blocks = to_blocks(s, 0, -kernel.shape[0] % s, jnp.moveaxis(kernel, 3, 0))
    return jnp.moveaxis(blocks, 0, 3)


def phases(s: int, kernel: Array) -> Iterator[tuple[Array, list[tuple[int, int]]]]:
    """Yields the convolution that computes each of the s² pixels of a block, row by row.

    Together they are the transposed convolution with `kernel` [k, k, C_in, C_out], k > s. A pixel's
    convolution has stride 1 and only the taps that reach the pixel. It is yielded as its kernel,
    [≤n, ≤n, C_out, C_in], and its padding.
    """
    _, low, _ = geometry(s, kernel)
    sides = [_taps(s, kernel.shape[0], place + low) for place in range(s)]
    for (rows, above_below), (columns, left_right) in itertools.product(sides, sides):
        yield looped_convolutions.mirror(kernel[rows, columns]), [above_below, left_right]


def _taps(s: int, k: int, pixel: int) -> tuple[slice, tuple[int, int]]:
    """Returns which of k taps reach a pixel of a padded block, and their reach on both sides."""
    taps = range(pixel % s, k, s)
    return slice(taps.start, k, s), ((taps[-1] - pixel) // s, (pixel - taps[0]) // s)


def interleave(s: int, parts: Sequence[Array]) -> Array:
    """s² arrays [B, h, w, C], one per pixel of a block, row by row → [B, s·h, s·w, C]."""
    b, h, w, c = parts[0].shape
    rows = [jnp.stack(parts[start : start + s], 3) for start in range(0, s * s, s)]
    return jnp.stack(rows, 2).reshape(b, s * h, s * w, c)


def patches(n: int, blocks: Array) -> Array:
    """[B, h+n-1, w+n-1, C] → [B, h, w, n·n·C]."""
    # Columns first, then rows: XLA computes the input of every slice again. This takes 2n slices;
    # a direct form would take n².
    h, w = blocks.shape[1] - n + 1, blocks.shape[2] - n + 1
    columns = jnp.concatenate([blocks[:, :, v : v + w] for v in range(n)], -1)
    return jnp.concatenate([columns[:, u : u + h] for u in range(n)], -1)


def overlap_add(n: int, patches: Array) -> Array:
    """[B, h, w, n·n·C] → [B, h+n-1, w+n-1, C], the transpose of `patches`."""
    return _added(n, _added(n, patches, axis=1), axis=2)


def _added(n: int, parts: Array, *, axis: int) -> Array:
    """Adds up n parts of the channels, each shifted by one more place along `axis`."""
    pads = [[(0, 0)] * axis + [(i, n - 1 - i)] + [(0, 0)] * (3 - axis) for i in range(n)]
    return functools.reduce(jnp.add, map(jnp.pad, jnp.split(parts, n, -1), pads))
