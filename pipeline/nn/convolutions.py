"""Convolutions and transposed convolutions, SAME padding, in the form that suits the platform.

TPU and GPU use XLA's plain convolution. CPU uses the equal forms below, because XLA is slow there
for dilated arrays, images of few channels, kernels no larger than the stride, and kernel gradients
of large batches. The choice costs nothing, because only one form is lowered.

Every gradient is written out, also where XLA's own is fast: see `looped_convolutions`.

The forms were compared with the plain one on a two-core x86 CPU, by jax 0.10.2 and 0.11.2. A call
was value and gradients of batch 64, and `mesh.compiling.jit` compiled both. The β-VAE of Burgess
et al. runs 4.2 and 4.7 times as fast. Transposed layers run 2.0–12 and 2.1–12 times as fast,
convolutions 1.0–2.2 and 1.1–2.6 times. No platform pads channels. Padded to 128, that β-VAE's step
would take 1.5 to 2.4 times as long on TPUs, by their compiler's own estimate.

Space to depth puts each s×s block of pixels into one pixel of s²·C channels. A k×k convolution of
stride s becomes an n×n convolution of stride 1 with a kernel K, n = ⌈k/s⌉. Its transpose becomes
the transpose of that convolution, followed by depth to space (sub-pixel convolution, Shi et al.
2016, arXiv:1609.05158). No dilation is left. If s does not divide k, zeros pad K; one convolution
per pixel of a block avoids them. A transposed convolution is the input gradient of the convolution
with the mirrored kernel k'. So three linear maps make both layers and their gradients:

                     value        input gradient    kernel gradient
    conv             down(x, k)   up(dy, k)         kernel_gradient(x, dy)
    conv_transpose   up(x, k')    down(dy, k')      kernel_gradient(dy, x)'
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from pipeline.nn import looped_convolutions, pixel_blocks

FEW = 4  # channels; the patches of images with so few are small
LARGE = 2**22  # bytes; from this size, four kernel gradients of quarter batches are faster than one


def conv(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Convolves like `nnx.Conv(padding="SAME")`, without a bias.

    Args:
      x: [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], in x's dtype.
      stride: s, along H and W.

    Returns:
      [B, ⌈H/s⌉, ⌈W/s⌉, C_out], in x's dtype.
    """
    plain = functools.partial(_xla, lax.conv_general_dilated, stride)
    blocked = lambda x, k: _down(stride, pixel_blocks.whole(stride, k, x), k)  # noqa: E731
    return _by_platform(blocked, plain, x, kernel)


def conv_transpose(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Upsamples like `nnx.ConvTranspose(padding="SAME")`, without a bias.

    Args:
      x: [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], in x's dtype, not mirrored (`transpose_kernel=False`).
      stride: s, along H and W.

    Returns:
      [B, s·H, s·W, C_out], in x's dtype.
    """
    plain = functools.partial(_xla, lax.conv_transpose, stride)
    blocked = lambda x, k: _up(stride, x, looped_convolutions.mirror(k))  # noqa: E731
    return _by_platform(blocked, plain, x, kernel)


def _by_platform(blocked, plain, x, kernel):
    return lax.platform_dependent(
        *looped_convolutions.varying_alike(x, kernel), cpu=blocked, default=plain
    )


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns y + bias, for y [..., C] and bias [C].

    The gradient of the bias is a sum over all other dimensions. On CPU it is computed as a product
    with ones, because XLA's sum uses one thread there and takes 3 to 14 times as long.
    """
    return lax.platform_dependent(
        *looped_convolutions.varying_alike(y, bias), cpu=_add, default=jnp.add
    )


def _xla(operation, stride, x, kernel, padding="SAME"):
    order = looped_convolutions.ORDER
    return operation(x, kernel, (stride, stride), padding, dimension_numbers=order)


def _down_form(stride, x, kernel):
    """y = patches(blocks(x))·K if patches are small, otherwise XLA's own form, which is fast."""
    n, low, high = pixel_blocks.geometry(stride, kernel)
    if not _small_patches(n, kernel):
        return _xla(lax.conv_general_dilated, stride, x, kernel)
    patches = pixel_blocks.patches(n, pixel_blocks.to_blocks(stride, low, high, x))
    # Flat rows make the kernel gradient one matrix product. With the three dimensions kept, the
    # whole network is 6 % slower.
    rows = patches.reshape(-1, patches.shape[-1])
    y = rows @ pixel_blocks.kernel_to_blocks(stride, kernel).reshape(rows.shape[-1], -1)
    return y.reshape(*patches.shape[:3], -1)


# JAX's own input gradient would be a convolution of a dilated array, which is slow on CPU.
_down = jax.custom_vjp(_down_form, nondiff_argnums=(0,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _up(stride, y, kernel):
    """blocks(x) = overlap_add(y·Kᵀ) if patches are small, otherwise y, padded, convolved with K'.

    If s does not divide k, each pixel of a block gets its own convolution, since zeros would pad K.
    """
    n, low, high = pixel_blocks.geometry(stride, kernel)
    blocks_kernel = pixel_blocks.kernel_to_blocks(stride, kernel)
    if _small_patches(n, kernel):
        kernel_rows = blocks_kernel.reshape(-1, y.shape[-1])
        # The n² parts of a pixel are added in float32, so that bfloat16 is rounded only once.
        wide = jnp.promote_types(y.dtype, jnp.float32)
        parts = jnp.matmul(y, kernel_rows.T, preferred_element_type=wide)
        blocks = pixel_blocks.overlap_add(n, parts).astype(y.dtype)
    elif kernel.shape[0] % stride:
        convolve = functools.partial(_xla, lax.conv_general_dilated, 1, y)
        parts = [convolve(*phase) for phase in pixel_blocks.phases(stride, kernel)]
        return pixel_blocks.interleave(stride, parts)
    else:
        # With n − 1 on both sides the result has every block that a window of `_down` reads. Those
        # that only hold padding are left out at once.
        sides = [(n - 1 - low // stride, n - 1 - high // stride)] * 2
        low, high = low % stride, high % stride
        blocks = _xla(
            lax.conv_general_dilated, 1, y, looped_convolutions.mirror(blocks_kernel), sides
        )
    return pixel_blocks.from_blocks(stride, low, high, blocks)


def _kernel_gradient(stride, x, y, kernel):
    """dK = patches(blocks(x))ᵀ·y if patches are small, otherwise a convolution over the batch.

    The values of `kernel` do not matter: the map is linear in it.
    """
    if _small_patches(pixel_blocks.geometry(stride, kernel)[0], kernel):
        return jax.vjp(functools.partial(_down_form, stride, x), kernel)[1](y)[0]
    pads = pixel_blocks.same_padding(stride, kernel.shape[0], x.shape[1:3])
    gradient = lambda x, y: looped_convolutions.kernel_gradient(x, y, stride=stride, pads=pads)  # noqa: E731
    if x.nbytes < LARGE or len(x) < 4 * looped_convolutions.LEAST:
        return gradient(x, y)
    # The arrays are first transposed, which misses the cache if they are large. With quarters a
    # whole step runs 1.05 to 1.10 times as fast (jax 0.10.2), and none runs slower.
    # In bfloat16 the gradient of each quarter is rounded.
    return sum(map(gradient, jnp.array_split(x, 4), jnp.array_split(y, 4)))


# `_up` is the transpose of `_down` in x, and the reverse: each is the other's input gradient.
def _down_gradients(stride, saved, dy):
    x, kernel = saved
    return _up(stride, dy, kernel), _kernel_gradient(stride, x, dy, kernel)


def _up_gradients(stride, saved, dx):
    y, kernel = saved
    return _down(stride, dx, kernel), _kernel_gradient(stride, dx, y, kernel)


# Only the inputs are saved: patches, n² times as large, are made again in the backward pass.
_down.defvjp(lambda s, x, k: (_down(s, x, k), (x, k)), _down_gradients)
_up.defvjp(lambda s, y, k: (_up(s, y, k), (y, k)), _up_gradients)


@jax.custom_vjp
def _add(y, bias):
    return y + bias


def _add_gradients(_, dy):
    rows = dy.reshape(-1, dy.shape[-1])
    # The sum runs in float32, so that bfloat16 is rounded only once.
    wide = jnp.promote_types(dy.dtype, jnp.float32)
    total = jnp.matmul(jnp.ones((1, len(rows)), dy.dtype), rows, preferred_element_type=wide)
    return dy, total[0].astype(dy.dtype)


_add.defvjp(lambda y, bias: (y + bias, None), _add_gradients)


def _small_patches(n, kernel):
    """Says whether a product with patches beats XLA's convolution: n = 1 or C ≤ 4."""
    # Patches are n² times as large as the image, whose C channels are `kernel.shape[2]`.
    return n == 1 or kernel.shape[2] <= FEW


class Conv(nnx.Module):
    """`conv` and a bias, with the parameters of `nnx.Conv(padding="SAME")`."""

    function = staticmethod(conv)

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
        """Draws float32 parameters; `dtype` is the dtype of the computation and of its result."""
        self.kernel, self.bias = _parameters(kernel_size, in_features, out_features, rngs)
        self.stride, self.dtype = stride, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies `function` to [B, H, W, C_in] and adds the bias."""
        x, kernel, bias = (a.astype(self.dtype) for a in (x, self.kernel[...], self.bias[...]))
        return add_bias(self.function(x, kernel, stride=self.stride), bias)


class ConvTranspose(Conv):
    """`conv_transpose` and a bias, with the parameters of `nnx.ConvTranspose(padding="SAME")`."""

    function = staticmethod(conv_transpose)


def _parameters(size: int, c_in: int, c_out: int, rngs: nnx.Rngs) -> tuple[nnx.Param, nnx.Param]:
    """Draws Flax's default initial values."""
    # Kernel first, bias second, as in Flax: a seed then gives the same values as nnx.Conv.
    kernel = nnx.initializers.lecun_normal()(rngs.params(), (size, size, c_in, c_out), jnp.float32)
    bias = nnx.initializers.zeros_init()(rngs.params(), (c_out,), jnp.float32)
    return nnx.Param(kernel), nnx.Param(bias)
