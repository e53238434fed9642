"""Convolutions in the order of dimensions in which XLA's CPU compiler is fast inside loops.

That order has images as NHWC and a kernel as HWIO. Outside of loops the compiler brings every
convolution into it; inside, one in another order can take 50 times as long. JAX derives gradients
in other orders, so they are written out here. The measured forms are in `performance/TRIED.md`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

ORDER = ("NHWC", "HWIO", "NHWC")
LEAST = 8  # channels of a convolution; with fewer it is slow


def kernel_gradient(
    x: jax.Array, dy: jax.Array, *, stride: int, pads: Sequence[tuple[int, int]]
) -> jax.Array:
    """Returns dK [k_h, k_w, C_in, C_out] of y = conv(x, K): a convolution of x with dilated dy.

    The batch stands for the channels, and the channels of x for the batch. So a batch of few
    examples would be a convolution of few channels: the rows of their images then join them.

    Args:
      x: [B, H, W, C_in].
      dy: [B, h, w, C_out].
      stride: of the convolution, along H and W.
      pads: what it pads before and after H and W.
    """
    if len(x) < LEAST:
        return _by_rows(x, dy, stride, pads)
    images, kernel = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    return _dilated(images, kernel, (stride, stride), pads).transpose(1, 2, 0, 3)


def _by_rows(x, dy, stride, pads):
    """Moves dy over the images along W only, once for each row of K: B·h rows are the channels."""
    height, width, channels = dy.shape[1:]
    x, last = jnp.pad(x, [(0, 0), pads[0], (0, 0), (0, 0)]), (height - 1) * stride + 1
    read = jnp.stack([x[:, row : row + last : stride] for row in range(x.shape[1] - last + 1)])
    k, b, h, w, c = read.shape  # for each row of K, the rows of x that it multiplies
    images = read.transpose(0, 4, 3, 1, 2).reshape(k * c, 1, w, b * h)
    kernel = dy.transpose(2, 0, 1, 3).reshape(1, width, b * h, channels)
    gradient = _dilated(images, kernel, (1, stride), [(0, 0), pads[1]])
    return gradient.reshape(k, c, -1, channels).swapaxes(1, 2)


def _dilated(images, kernel, dilation, pads):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), pads, rhs_dilation=dilation, dimension_numbers=ORDER
    )


def mirror(kernel: jax.Array) -> jax.Array:
    """[k_h, k_w, C_in, C_out] → [k_h, k_w, C_out, C_in], rotated by 180°."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def valid(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves [B, H, W, C_in] with [k_h, k_w, C_in, C_out]: stride 1, no padding.

    Returns:
      [B, H − k_h + 1, W − k_w + 1, C_out], in x's dtype.
    """
    return lax.platform_dependent(*varying_alike(x, kernel), cpu=_valid, default=_xlas_valid)


def varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Casts all arrays to vary over the same mesh axes.

    shard_map(check_vma=True) requires that a custom gradient varies over the axes of its input.
    The cast comes before the custom gradient, so that its transpose sums over the mesh, as it does
    for plain forms.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset().union(*axes)
    return tuple(
        lax.pcast(array, tuple(every - own), to="varying")
        for array, own in zip(arrays, axes, strict=True)
    )


def _xlas_valid(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=ORDER)


_valid = jax.custom_vjp(_xlas_valid)


def _gradients(saved, dy):
    x, kernel = saved
    full = [(0, 0), *[(side - 1, side - 1) for side in kernel.shape[:2]], (0, 0)]
    dx = _valid(jnp.pad(dy, full), mirror(kernel))
    return dx, kernel_gradient(x, dy, stride=1, pads=[(0, 0)] * 2)


_valid.defvjp(lambda x, kernel: (_valid(x, kernel), (x, kernel)), _gradients)
