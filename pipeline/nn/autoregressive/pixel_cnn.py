"""A gated PixelCNN over the codes of an image (van den Oord et al. 2016, arXiv:1606.05328).

A vertical stack sees the rows above a site, and a horizontal one the sites before it in its row.
So no site before is hidden, as it is with a masked square (their section 2.2).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import looped_convolutions
from pipeline.nn.autoregressive import dropout
from pipeline.runtime import errors


class Layer(nnx.Module):
    """Both stacks once, each gated by the condition (their equation 4)."""

    def __init__(self, dim: int, reach: int, *, first: bool, dtype: Any, rngs: nnx.Rngs):
        """Builds kernels that reach back `reach` sites; those of the first layer leave out its own.

        The inputs of later layers know nothing of their own site, so these may see it.
        """
        options: dict[str, Any] = {"padding": "VALID", "dtype": dtype, "rngs": rngs}
        options["conv_general_dilated"] = _valid
        self.reach, self.own = reach, int(not first)
        rows = reach + self.own
        self.down = nnx.Conv(dim, 2 * dim, (rows, 2 * reach + 1), **options)
        self.right = nnx.Conv(dim, 2 * dim, (1, rows), **options)
        self.across = nnx.Linear(2 * dim, 2 * dim, dtype=dtype, rngs=rngs)
        self.conditions = nnx.Linear(dim, 4 * dim, use_bias=False, dtype=dtype, rngs=rngs)
        self.outputs = nnx.Linear(dim, dim, dtype=dtype, rngs=rngs)

    def __call__(
        self, vertical: Array, horizontal: Array, condition: Array, drop: dropout.Drop
    ) -> tuple[Array, Array]:
        """Returns both stacks' outputs, [B, h, w, dim] each, from their inputs of this shape."""
        biases = jnp.split(self.conditions(condition)[:, None, None], 2, axis=-1)
        # Padding before an image moves what its sites see back; the last sites then see too far.
        above = [(0, 0), (self.reach, 0), (self.reach, self.reach), (0, 0)]
        seen = self.down(jnp.pad(vertical, above))[:, : vertical.shape[1]]
        before = jnp.pad(horizontal, [(0, 0), (0, 0), (self.reach, 0), (0, 0)])
        mixed = self.right(before)[:, :, : horizontal.shape[2]] + self.across(seen)
        added = drop(self.outputs(_gate(mixed + biases[1])))
        return _gate(seen + biases[0]), horizontal + added if self.own else added


class PixelCNN(nnx.Module):
    """Features of the h·w sites, each of which sees the condition and the codes before it."""

    def __init__(self, section: Any, shape: tuple[int, ...], *, dtype: Any, rngs: nnx.Rngs):
        """Builds `num_layers` layers of `width` channels, with kernels of `kernel_size`.

        Args:
            section: the section `model`.
            shape: of the codes, [h, w].
            dtype: of the products.
            rngs: the stream `params`.

        Raises:
            InputError: a site has several codes, or `kernel_size` is even.
        """
        if len(shape) != 2:
            raise errors.InputError(
                f"config.model.network='pixel_cnn' takes one code a site, and these codes have "
                f"{shape[-1]}: use network='transformer'"
            )
        if section.kernel_size % 2 == 0 or section.kernel_size < 3:
            raise errors.InputError(
                f"config.model.kernel_size={section.kernel_size} must be odd and at least 3"
            )
        self.shape, dim = shape, section.width
        build = functools.partial(Layer, dim, section.kernel_size // 2, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(build(first=i == 0) for i in range(section.num_layers))
        self.last = nnx.Linear(dim, dim, dtype=dtype, rngs=rngs)

    def __call__(self, vectors: Array, condition: Array, drop: dropout.Drop) -> Array:
        """Returns features, [B, h·w, width].

        Args:
            vectors: of the codes, [B, h·w, width].
            condition: [B, width].
            drop: drops features in training.
        """
        vertical = horizontal = vectors.reshape(-1, *self.shape, vectors.shape[-1])
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, condition, drop)
        features = jax.nn.relu(self.last(jax.nn.relu(horizontal)))
        return features.reshape(vectors.shape)


def _valid(x: Array, kernel: Array, *unused: Any, **options: Any) -> Array:
    """Convolves for `nnx.Conv`, whose options here say no more than that nothing is padded."""
    return looped_convolutions.valid(x, kernel)


def _gate(x: Array) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.tanh(first) * jax.nn.sigmoid(second)
