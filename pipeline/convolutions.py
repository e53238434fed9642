"""Convolutions and transposed convolutions, SAME padding, in the form that suits the platform.

The one decision: TPU and GPU get XLA's plain convolution, CPU the equal forms below where XLA's are
slow there: in kernel gradients of transposed convolutions, wherever it must convolve a dilated
array, and for k ≤ s or images of few channels. Choosing costs nothing: only one form is lowered.

Put each s×s block of pixels into one pixel of s²·C channels (space to depth): a k×k convolution of
stride s becomes an n×n one of stride 1, n = ⌈k/s⌉, and its transpose that one's transpose, then
depth to space (sub-pixel convolution, Shi et al. 2016, arXiv 1609.05158): no dilation is left. As a
transposed convolution is the input gradient of the convolution with the mirrored kernel k', three
linear maps make both layers and their gradients:

                     value        input gradient    kernel gradient
    conv             down(x, k)   up(dy, k)         kernel_gradient(x, dy)
    conv_transpose   up(x, k')    down(dy, k')      kernel_gradient(dy, x)'
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Convolves as `nnx.Conv(padding="SAME")` does, without a bias.

    Args:
      x: [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], in x's dtype.
      stride: s, along H and W.

    Returns:
      [B, ⌈H/s⌉, ⌈W/s⌉, C_out], in x's dtype.
    """
    whole_blocks = x.shape[1] % stride == x.shape[2] % stride == 0
    return _by_platform(_blocked_conv if whole_blocks else _conv, _conv, x, kernel, stride)


def conv_transpose(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Upsamples as `nnx.ConvTranspose(padding="SAME")` does, without a bias.

    Args:
      x: [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], in x's dtype, not mirrored (`transpose_kernel=False`).
      stride: s, along H and W.

    Returns:
      [B, s·H, s·W, C_out], in x's dtype.
    """
    return _by_platform(_blocked_conv_transpose, _conv_transpose, x, kernel, stride)


def _by_platform(
    blocked: Callable, plain: Callable, x: jax.Array, kernel: jax.Array, stride: int
) -> jax.Array:
    if kernel.shape[0] > stride == 1:  # nothing to dilate or to block: XLA's form is the fastest
        return plain(stride, x, kernel)
    # shard_map(check_vma=True) wants a custom gradient to vary over the mesh axes its input varies
    # over. Cast first: the cast's transpose then sums over the mesh, as it does for plain forms.
    axes = _varying(x) | _varying(kernel)
    x, kernel = (lax.pcast(a, tuple(axes - _varying(a)), to="varying") for a in (x, kernel))
    cpu, default = functools.partial(blocked, stride), functools.partial(plain, stride)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _varying(a: jax.Array) -> frozenset[str]:
    return jax.typeof(a).manual_axis_type.varying


def _conv(stride, x, kernel):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


def _conv_transpose(stride, x, kernel):
    return lax.conv_transpose(x, kernel, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blocked_conv(stride, x, kernel):
    return _down(stride, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blocked_conv_transpose(stride, x, kernel):
    return _up(stride, x, _mirror(kernel))


def _conv_gradients(stride, saved, dy):
    x, kernel = saved
    return _up(stride, dy, kernel), _kernel_gradient(stride, x, dy, kernel)


def _conv_transpose_gradients(stride, saved, dy):
    x, kernel = saved[0], _mirror(saved[1])
    return _down(stride, dy, kernel), _mirror(_kernel_gradient(stride, dy, x, kernel))


_blocked_conv.defvjp(lambda s, x, k: (_blocked_conv(s, x, k), (x, k)), _conv_gradients)
_blocked_conv_transpose.defvjp(
    lambda s, x, k: (_blocked_conv_transpose(s, x, k), (x, k)), _conv_transpose_gradients
)


def _down(stride, x, kernel):
    """y = patches(blocks(x))·K where patches are small; else plain, which XLA does well."""
    n, low, high = _geometry(stride, kernel)
    if not _small_patches(n, kernel):
        return _conv(stride, x, kernel)
    patches = _patches(_to_blocks(x, stride, low, high), n)
    # Flat rows, so that the gradient is flat too: over three dims it costs 7 % of the network.
    rows = patches.reshape(-1, patches.shape[-1])
    y = rows @ _kernel_to_blocks(kernel, stride).reshape(rows.shape[-1], -1)
    return y.reshape(*patches.shape[:3], -1)


def _up(stride, y, kernel):
    """blocks(x) = overlap_add(y·Kᵀ) where patches are small; else y, padded, convolved with K'."""
    n, low, high = _geometry(stride, kernel)
    kernel_of_blocks = _kernel_to_blocks(kernel, stride)
    if _small_patches(n, kernel):
        blocks = _overlap_add(y @ kernel_of_blocks.reshape(-1, y.shape[-1]).T, n)
    else:
        full = [(n - 1, n - 1)] * 2
        blocks = lax.conv_general_dilated(
            y, _mirror(kernel_of_blocks), (1, 1), full, dimension_numbers=_LAYOUT
        )
    return _from_blocks(blocks, stride, low, high)


def _kernel_gradient(stride, x, y, kernel):
    """patches(blocks(x))ᵀ·y or XLA's own, as `_down`: the map is linear in K, so K's value is moot."""
    return jax.vjp(functools.partial(_down, stride, x), kernel)[1](y)[0]


def _small_patches(n, kernel):
    """Whether a matmul on patches (n² times the image) beats XLA's convolution: n = 1, or C ≤ 4."""
    return n == 1 or kernel.shape[2] <= 4


def _geometry(stride, kernel):
    """Returns n, and SAME's padding before and after the image, the latter up to whole blocks."""
    k = kernel.shape[0]
    n, low = -(-k // stride), max(k - stride, 0) // 2
    return n, low, (n - 1) * stride - low


def _to_blocks(x, s, low, high):
    """Space to depth: [B, H, W, C] → [B, h+n-1, w+n-1, s·s·C]."""
    x = jnp.pad(x, [(0, 0), (low, high), (low, high), (0, 0)])
    b, h, w, c = x.shape
    return x.reshape(b, h // s, s, w // s, s * c).swapaxes(2, 3).reshape(b, h // s, w // s, -1)


def _from_blocks(blocks, s, low, high):
    """Depth to space: [B, h+n-1, w+n-1, s·s·C] → [B, H, W, C]."""
    b, h, w, c = blocks.shape
    x = blocks.reshape(b, h, w, s, c // s).swapaxes(2, 3).reshape(b, h * s, w * s, -1)
    return x[:, low : h * s - high, low : w * s - high]


def _kernel_to_blocks(kernel, s):
    """[k, k, C_in, C_out] → [n, n, s·s·C_in, C_out], with zeros after it if s doesn't divide k."""
    k, _, _, c_out = kernel.shape
    n = -(-k // s)
    kernel = jnp.pad(kernel, [(0, n * s - k), (0, n * s - k), (0, 0), (0, 0)])
    return kernel.reshape(n, s, n, s, -1, c_out).swapaxes(1, 2).reshape(n, n, -1, c_out)


def _mirror(kernel):
    """[k, k, C_in, C_out] → [k, k, C_out, C_in], turned by 180°."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _patches(blocks, n):
    """[B, h+n-1, w+n-1, C] → [B, h, w, n·n·C]: the n×n blocks from each one on."""
    h, w = blocks.shape[1] - n + 1, blocks.shape[2] - n + 1
    return jnp.concatenate([blocks[:, u : u + h, v : v + w] for u, v in _taps(n)], -1)


def _overlap_add(patches, n):
    """[B, h, w, n·n·C] → [B, h+n-1, w+n-1, C], the transpose of `_patches`."""
    parts = zip(jnp.split(patches, n * n, -1), _taps(n), strict=True)
    return sum(jnp.pad(p, [(0, 0), (u, n - 1 - u), (v, n - 1 - v), (0, 0)]) for p, (u, v) in parts)


def _taps(n):
    return [(u, v) for u in range(n) for v in range(n)]


class Conv(nnx.Module):
    """`conv` and a bias, with the parameters of `nnx.Conv(padding="SAME")`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int = 4,
        stride: int = 2,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Draws float32 parameters; `dtype` is the type of the computation and its result."""
        self.kernel, self.bias = _parameters(kernel_size, in_features, out_features, rngs)
        self.stride, self.dtype = stride, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C_in] → [B, ⌈H/s⌉, ⌈W/s⌉, C_out]."""
        x, kernel, bias = (a.astype(self.dtype) for a in (x, self.kernel[...], self.bias[...]))
        return conv(x, kernel, stride=self.stride) + bias


class ConvTranspose(nnx.Module):
    """`conv_transpose` and a bias, with the parameters of `nnx.ConvTranspose(padding="SAME")`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int = 4,
        stride: int = 2,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Draws float32 parameters; `dtype` is the type of the computation and its result."""
        self.kernel, self.bias = _parameters(kernel_size, in_features, out_features, rngs)
        self.stride, self.dtype = stride, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C_in] → [B, s·H, s·W, C_out]."""
        x, kernel, bias = (a.astype(self.dtype) for a in (x, self.kernel[...], self.bias[...]))
        return conv_transpose(x, kernel, stride=self.stride) + bias


def _parameters(size: int, c_in: int, c_out: int, rngs: nnx.Rngs) -> tuple[nnx.Param, nnx.Param]:
    """Flax's defaults, and its order of keys, so that a seed gives what it gives with nnx.Conv."""
    kernel = nnx.initializers.lecun_normal()(rngs.params(), (size, size, c_in, c_out), jnp.float32)
    bias = nnx.initializers.zeros_init()(rngs.params(), (c_out,), jnp.float32)
    return nnx.Param(kernel), nnx.Param(bias)
