"""2-D convolutions with SAME padding, down and up, in the form that suits the platform.

The one decision: TPU and GPU get XLA's plain convolution, CPU an equal form of stride-1 products.
There XLA is slow wherever a convolution is dilated, so in every transposed one and in the gradients.

A k×k convolution of stride s is, once each s×s block of pixels is one pixel of s²·C channels (space
to depth), an n×n convolution of stride 1 with n = ⌈k/s⌉, and its transpose is that one's transpose
followed by depth to space (Shi et al. 2016, arXiv 1609.05158): no dilation is left. Two families of
layers need three maps, because a transposed convolution is the input gradient of the convolution
with the mirrored kernel:

              value            input gradient    kernel gradient
    conv      _down(x, k)      _up(dy, k)        _kernel_gradient(x, dy)
    transpose _up(x, k')       _down(dy, k')     _kernel_gradient(dy, x)'     ' mirrors the kernel
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Convolves as `nnx.Conv(padding="SAME")` does, without a bias.

    Args:
      x: [B, H, W, C_in].
      kernel: [k, k, C_in, C_out] of x's dtype.
      stride: of both H and W.

    Returns:
      [B, ⌈H/stride⌉, ⌈W/stride⌉, C_out] in x's dtype.
    """
    fits = x.shape[1] % stride == 0 and x.shape[2] % stride == 0
    return _choose(_fast_conv, _plain_conv, x, kernel, stride, fits)


def conv_transpose(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Upsamples as `nnx.ConvTranspose(padding="SAME")` does, without a bias.

    Args:
      x: [B, H, W, C_in].
      kernel: [k, k, C_in, C_out] of x's dtype, not mirrored (`transpose_kernel=False`).
      stride: of both H and W.

    Returns:
      [B, H·stride, W·stride, C_out] in x's dtype.
    """
    return _choose(_fast_conv_transpose, _plain_conv_transpose, x, kernel, stride, True)


def _choose(fast, plain, x, kernel, stride, fits):
    """Applies `fast` where the program is lowered for CPU and the fast form exists, else `plain`."""
    plain = functools.partial(plain, stride)
    if not fits or kernel.shape[0] > stride == 1:  # 3×3 of stride 1: nothing is dilated
        return plain(x, kernel)
    # Inside shard_map(check_vma=True) a custom gradient must vary over the axes its input varies
    # over. Casting here leaves the sum over the mesh to the cast's transpose, as plain forms do.
    axes = jax.typeof(x).mat.varying | jax.typeof(kernel).mat.varying
    x, kernel = (
        lax.pcast(a, tuple(axes - jax.typeof(a).mat.varying), to="varying") for a in (x, kernel)
    )
    return lax.platform_dependent(x, kernel, cpu=functools.partial(fast, stride), default=plain)


def _plain_conv(stride, x, kernel):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


def _plain_conv_transpose(stride, x, kernel):
    return lax.conv_transpose(x, kernel, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fast_conv(stride, x, kernel):
    return _down(x, kernel, stride)


def _fast_conv_backward(stride, saved, dy):
    x, kernel = saved
    return _up(dy, kernel, stride), _kernel_gradient(x, dy, kernel.shape[0], stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fast_conv_transpose(stride, x, kernel):
    return _up(x, _mirror(kernel), stride)


def _fast_conv_transpose_backward(stride, saved, dy):
    x, kernel = saved
    dk = _mirror(_kernel_gradient(dy, x, kernel.shape[0], stride))
    return _down(dy, _mirror(kernel), stride), dk


_fast_conv.defvjp(lambda s, x, k: (_down(x, k, s), (x, k)), _fast_conv_backward)
_fast_conv_transpose.defvjp(
    lambda s, x, k: (_up(x, _mirror(k), s), (x, k)), _fast_conv_transpose_backward
)


def _down(x, kernel, stride):
    """y = patches(s2d(x)) · K, one matmul, for n = 1 or up to 4 channels; else XLA's convolution."""
    n, low, high = _geometry(kernel.shape[0], stride)
    if n > 1 and x.shape[-1] > 4:
        return _plain_conv(stride, x, kernel)
    columns = _patches(_space_to_depth(x, stride, low, high), n)
    return columns @ _blocks(kernel, stride).reshape(columns.shape[-1], -1)


def _up(y, kernel, stride):
    """x = d2s(full n×n convolution of y with Kᵀ): s² phases of taps without a zero among them."""
    n, low, high = _geometry(kernel.shape[0], stride)
    k = _mirror(_blocks(kernel, stride))
    if n == 1:
        z = y @ k[0, 0]
    else:
        z = lax.conv_general_dilated(y, k, (1, 1), [(n - 1, n - 1)] * 2, dimension_numbers=_LAYOUT)
    return _depth_to_space(z, stride, low, high)


def _kernel_gradient(x, y, size, stride):
    """dK[u, v] = Σ z[i+u, j+v] ⊗ y[i, j] with z = s2d(x): one matmul, the thinner side as patches."""
    n, low, high = _geometry(size, stride)
    z = _space_to_depth(x, stride, low, high)
    c, c_out = z.shape[-1], y.shape[-1]
    if c <= c_out:
        dk = _contract(_patches(z, n), y).reshape(n, n, c, c_out)
    else:
        y = _patches(jnp.pad(y, [(0, 0), (n - 1, n - 1), (n - 1, n - 1), (0, 0)]), n)
        dk = _contract(z, y).reshape(c, n, n, c_out).transpose(1, 2, 0, 3)[::-1, ::-1]
    dk = dk.reshape(n, n, stride, stride, -1, c_out).swapaxes(1, 2)
    return dk.reshape(n * stride, n * stride, -1, c_out)[:size, :size]


def _geometry(size, stride):
    """Taps n of the stride-1 form, and the padding before and after that makes whole blocks."""
    n, low = -(-size // stride), max(size - stride, 0) // 2
    return n, low, (n - 1) * stride - low


def _space_to_depth(x, s, low, high):
    """[B, H, W, C] → padded, [B, h, w, s·s·C]."""
    x = jnp.pad(x, [(0, 0), (low, high), (low, high), (0, 0)])
    b, h, w, c = x.shape
    return x.reshape(b, h // s, s, w // s, s * c).swapaxes(2, 3).reshape(b, h // s, w // s, -1)


def _depth_to_space(z, s, low, high):
    """[B, h, w, s·s·C] → [B, H, W, C], cropped of the padding."""
    b, h, w, c = z.shape
    x = z.reshape(b, h, w, s, c // s).swapaxes(2, 3).reshape(b, h * s, w * s, -1)
    return x[:, low : h * s - high, low : w * s - high]


def _blocks(kernel, s):
    """[k, k, C_in, C_out] → [n, n, s·s·C_in, C_out], with zeros where s doesn't divide k."""
    k, _, _, c_out = kernel.shape
    n = -(-k // s)
    kernel = jnp.pad(kernel, [(0, n * s - k), (0, n * s - k), (0, 0), (0, 0)])
    return kernel.reshape(n, s, n, s, -1, c_out).swapaxes(1, 2).reshape(n, n, -1, c_out)


def _mirror(kernel):
    """[k, k, C_in, C_out] → turned by 180°, [k, k, C_out, C_in]."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _patches(z, n):
    """[B, H, W, C] → [B, H-n+1, W-n+1, n·n·C], the n×n pixels from each one on."""
    h, w = z.shape[1] - n + 1, z.shape[2] - n + 1
    return jnp.concatenate([z[:, u : u + h, v : v + w] for u in range(n) for v in range(n)], -1)


def _contract(a, b):
    """Σ over examples and pixels of a ⊗ b: [B, h, w, M], [B, h, w, N] → [M, N]."""
    rows = (((0,), (0,)), ((), ()))
    return lax.dot_general(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), rows)


class Conv(nnx.Module):
    """`conv` with a bias; the parameters of `nnx.Conv(padding="SAME")`."""

    def __init__(
        self, in_features, out_features, *, kernel_size=4, stride=2, dtype=jnp.float32, rngs
    ):
        """Draws the kernel [k, k, C_in, C_out]; parameters are float32, `dtype` is computed in."""
        self.stride, self.dtype = stride, dtype
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(nnx.initializers.zeros_init()(rngs.params(), shape[3:], jnp.float32))

    def __call__(self, x):
        """[B, H, W, C_in] → [B, ⌈H/stride⌉, ⌈W/stride⌉, C_out] in `dtype`."""
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        return conv(x.astype(self.dtype), kernel, stride=self.stride) + bias


class ConvTranspose(nnx.Module):
    def __init__(
        self, in_features, out_features, *, kernel_size=4, stride=2, dtype=jnp.float32, rngs
    ):
        self.stride, self.dtype = stride, dtype
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(nnx.initializers.zeros_init()(rngs.params(), shape[3:], jnp.float32))

    def __call__(self, x):
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        return conv_transpose(x.astype(self.dtype), kernel, stride=self.stride) + bias
