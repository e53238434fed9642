"""What the networks of grids are made of: a stack of stages, residual blocks, attention.

A stage is a list of layers. With `remat` the backward pass computes a stage again from its input,
so that only the stages' inputs stay in memory (Chen et al. 2016, arXiv:1604.06174).
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import attention, convolutions

Layers = list[Any]  # functions and modules, [B, h, w, C] → [B, h', w', C']
Pair = tuple[list[Layers], list[Layers]]  # the stages of an encoder, and of its decoder


class Ends(NamedTuple):
    """What a pair of networks connects."""

    image: tuple[int, int, int]  # H, W, C
    outputs: int  # channels that the encoder returns at each place of the grid
    inputs: int  # channels that the decoder gets there


class Stack(nnx.Sequential):
    """Stages, one after the other; parameters have the same names with and without `remat`."""

    def __init__(self, stages: Sequence[Layers], *, remat: bool = False):
        """Puts all layers into one list, whose indices name the parameters."""
        super().__init__(*itertools.chain(*stages))
        self.ends = tuple(itertools.accumulate(map(len, stages))) if remat else ()

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """[B, h, w, C] → [B, h', w', C']."""
        layers: Layers = list(self.layers)
        if not self.ends:
            return _applied(layers, x)
        for start, end in itertools.pairwise((0, *self.ends)):
            x = jax.checkpoint(functools.partial(_applied, layers[start:end]))(x)
        return x


def _applied(layers: Sequence[Callable[[Array], Array]], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


class Builder:
    """Builds layers of one computation dtype, with keys from one stream."""

    def __init__(self, dtype: Any, rngs: nnx.Rngs):
        """Binds both to `conv` and `up`."""
        self.options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv: Any = functools.partial(convolutions.Conv, **self.options)
        self.up: Any = functools.partial(convolutions.ConvTranspose, **self.options)

    def norm(self, width: int) -> nnx.GroupNorm:
        """Returns a normalisation of up to 32 groups, per example; its sums are in float32."""
        return nnx.GroupNorm(width, num_groups=math.gcd(32, width), **self.options)


class Residual(nnx.Module):
    """x + f(x)."""

    def __init__(self, layers: Layers):
        """Stores the layers of f, whose result must have the shape of its input."""
        self.layers = nnx.Sequential(*layers)

    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] → [B, h, w, C]."""
        return x + self.layers(x)


class Attention(nnx.Module):
    """x + the places of a grid, mixed by one head of C dimensions (Esser et al. 2021).

    The block of arXiv:2012.09841: group normalisation, then 1×1 convolutions to queries, keys and
    values, and from what they mix. The softmax is in float32.
    """

    def __init__(self, build: Builder, width: int):
        """Draws the parameters for grids of `width` channels."""
        self.norm = build.norm(width)
        self.inputs = build.conv(width, 3 * width, kernel_size=1, stride=1)
        self.outputs = build.conv(width, width, kernel_size=1, stride=1)

    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] → [B, h, w, C]; every place sees all h·w places of its own example."""
        places = self.inputs(self.norm(x)).reshape(x.shape[0], -1, 1, 3 * x.shape[3])
        queries, keys, values = jnp.split(places, 3, axis=-1)
        return x + self.outputs(attention.attend(queries, keys, values).reshape(x.shape))
