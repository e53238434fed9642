"""Encoders to a grid of vectors, and decoders from it: `dense`, `conv`, `residual`, `scalable`.

An encoder maps images [B, H, W, C] to vectors [B, H/f, W/f, D], with f the downsampling. A decoder
maps them back. As in `nn.networks`, no activation follows the last layer.
"""

import functools
import itertools
import math
from typing import Any

import jax
from flax import nnx
from jax import Array

from pipeline.nn import convolutions
from pipeline.runtime import errors, registry

Layers = list[Any]  # functions and modules, [B, h, w, C] → [B, h', w', C']


class Residual(nnx.Module):
    """x + f(x)."""

    def __init__(self, layers: Layers):
        """Stores the layers of f, whose result must have the shape of its input."""
        self.layers = nnx.Sequential(*layers)

    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] → [B, h, w, C]."""
        return x + self.layers(x)


class Builder:
    """Builds layers of one computation dtype, with keys from one stream."""

    def __init__(self, dtype: Any, rngs: nnx.Rngs):
        """Binds both to `conv`, `up` and `norm`."""
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv: Any = functools.partial(convolutions.Conv, **options)
        self.up: Any = functools.partial(convolutions.ConvTranspose, **options)
        self.norm: Any = functools.partial(nnx.GroupNorm, **options)


def dense(section: Any, build: Builder, channels: int, dim: int) -> tuple[Layers, Layers]:
    """An MLP on each f×f patch, with the layers `hidden`, mirrored in the decoder."""
    factor, widths = section.downsampling, tuple(section.hidden)
    encoder: Layers = [build.conv(channels, widths[0], kernel_size=factor, stride=factor)]
    decoder: Layers = [build.conv(dim, widths[-1], kernel_size=1, stride=1)]
    for before, after in itertools.pairwise(widths):
        encoder += [jax.nn.relu, build.conv(before, after, kernel_size=1, stride=1)]
    for before, after in itertools.pairwise(widths[::-1]):
        decoder += [jax.nn.relu, build.conv(before, after, kernel_size=1, stride=1)]
    encoder += [jax.nn.relu, build.conv(widths[-1], dim, kernel_size=1, stride=1)]
    decoder += [jax.nn.relu, build.up(widths[0], channels, kernel_size=factor, stride=factor)]
    return encoder, decoder


def conv(section: Any, build: Builder, channels: int, dim: int) -> tuple[Layers, Layers]:
    """The network of Keras' example: 3×3 convolutions of 32 and 64 channels, stride 2; f = 4."""
    del section
    encoder: Layers = [
        build.conv(channels, 32, kernel_size=3),
        jax.nn.relu,
        build.conv(32, 64, kernel_size=3),
        jax.nn.relu,
        build.conv(64, dim, kernel_size=1, stride=1),
    ]
    decoder: Layers = [
        build.up(dim, 64, kernel_size=3),
        jax.nn.relu,
        build.up(64, 32, kernel_size=3),
        jax.nn.relu,
        build.up(32, channels, kernel_size=3, stride=1),
    ]
    return encoder, decoder


def residual(section: Any, build: Builder, channels: int, dim: int) -> tuple[Layers, Layers]:
    """The network of Sonnet's example: 64 and 128 channels, two residual blocks of 32; f = 4."""
    del section

    def blocks() -> Layers:
        return [
            Residual(
                [
                    jax.nn.relu,
                    build.conv(128, 32, kernel_size=3, stride=1),
                    jax.nn.relu,
                    build.conv(32, 128, kernel_size=1, stride=1),
                ]
            )
            for _ in range(2)
        ]

    # The blocks come last, on the smallest grid, because they cost least there.
    encoder: Layers = [
        build.conv(channels, 64),
        jax.nn.relu,
        build.conv(64, 128),
        jax.nn.relu,
        build.conv(128, 128, kernel_size=3, stride=1),
        jax.nn.relu,
        *blocks(),
        jax.nn.relu,
        build.conv(128, dim, kernel_size=1, stride=1),
    ]
    # No ReLU stands before the blocks, because each begins with one.
    decoder: Layers = [
        build.conv(dim, 128, kernel_size=3, stride=1),
        *blocks(),
        jax.nn.relu,
        build.up(128, 64),
        jax.nn.relu,
        build.up(64, channels),
    ]
    return encoder, decoder


def scalable(section: Any, build: Builder, channels: int, dim: int) -> tuple[Layers, Layers]:
    """Residual blocks with group normalisation, log₂ f halvings, after Esser et al. 2021.

    arXiv:2012.09841, table 7, without attention. Level i has `channels`·`channel_multipliers`[i]
    channels and `blocks_per_level` blocks. A 4×4 convolution of stride 2 leads to the next level.
    """
    widths = [section.channels * m for m in section.channel_multipliers]
    blocks = range(section.blocks_per_level)
    encoder: Layers = [build.conv(channels, widths[0], kernel_size=3, stride=1)]
    decoder: Layers = [build.conv(dim, widths[-1], kernel_size=3, stride=1)]
    for level, width in enumerate(widths):
        if level:
            encoder.append(build.conv(widths[level - 1], width))
        encoder += [_norm_block(build, width) for _ in blocks]
    for level, width in reversed(list(enumerate(widths))):
        decoder += [_norm_block(build, width) for _ in blocks]
        if level:
            decoder.append(build.up(width, widths[level - 1]))
    encoder += _norm(build, widths[-1])
    encoder.append(build.conv(widths[-1], dim, kernel_size=1, stride=1))
    decoder += _norm(build, widths[0])
    decoder.append(build.conv(widths[0], channels, kernel_size=3, stride=1))
    return encoder, decoder


def _norm(build: Builder, width: int) -> Layers:
    return [build.norm(width, num_groups=math.gcd(32, width)), jax.nn.silu]


def _norm_block(build: Builder, width: int) -> Residual:
    layers: Layers = []
    for _ in range(2):
        layers += [*_norm(build, width), build.conv(width, width, kernel_size=3, stride=1)]
    return Residual(layers)


NETWORKS = {"dense": dense, "conv": conv, "residual": residual, "scalable": scalable}
SIZES = {"dense": ("hidden",), "scalable": ("channels", "blocks_per_level", "channel_multipliers")}


def check(section: Any, shape: tuple[int, int, int]) -> None:
    """Raises an InputError if `config.model` does not fit images of `shape`."""
    registry.check(section.network, NETWORKS, field="model.network")
    for field in ("downsampling", *SIZES.get(section.network, ())):
        value = section[field]
        if not value or min(jax.tree.leaves(value)) < 1:
            raise errors.InputError(f"config.model.{field}={value} must be at least 1")
    factor = section.downsampling
    if section.network in ("conv", "residual") and factor != 4:
        raise errors.InputError(
            f"config.model.downsampling={factor} must be 4 for network={section.network}"
        )
    if section.network == "scalable":
        multipliers = tuple(section.channel_multipliers)
        if factor != 2 ** (len(multipliers) - 1):
            raise errors.InputError(
                f"config.model.downsampling={factor} must be 2^(levels − 1), but "
                f"channel_multipliers={multipliers} has {len(multipliers)} levels"
            )
    if shape[0] % factor or shape[1] % factor:
        fitting = "×".join(str(-(-side // factor) * factor) for side in shape[:2])
        raise errors.InputError(
            f"config.model.downsampling={factor} must divide the sides of images "
            f"{shape[0]}×{shape[1]}, as those of {fitting}"
        )


def autoencoder(
    config: Any, shape: tuple[int, int, int], dim: int, *, rngs: nnx.Rngs
) -> tuple[nnx.Sequential, nnx.Sequential]:
    """Returns the encoder to D = `dim` channels and the decoder from them.

    Raises:
        InputError: the network is unknown, or does not fit `shape`.
    """
    check(config.model, shape)
    build = Builder(config.compute_dtype, rngs)
    encoder, decoder = NETWORKS[config.model.network](config.model, build, shape[2], dim)
    return nnx.Sequential(*encoder), nnx.Sequential(*decoder)
