"""Residual blocks on grids of falling sizes, for images up to 256×256 and more: `scalable`.

The networks of VQGAN (Esser et al. 2021, arXiv:2012.09841, table 7) and of latent diffusion's
autoencoders (Rombach et al. 2022, arXiv:2112.10752, appendix G), with as many blocks in the decoder
as in the encoder, and 4×4 convolutions between the levels.
"""

from typing import Any

import jax

from pipeline.nn.grids.layers import Attention, Builder, Ends, Layers, Pair, Residual
from pipeline.runtime import errors

Stages = list[Layers]


def scalable(section: Any, build: Builder, ends: Ends) -> Pair:
    """Residual blocks with group normalisation, log₂ f halvings, possibly with attention.

    Level i has `channels`·`channel_multipliers`[i] channels and `blocks_per_level` blocks. A 4×4
    convolution of stride 2 leads to the next level. At the levels of `attention_resolutions` each
    block is followed by attention. If there are any, a block, attention and a block follow the
    encoder's last level and precede the decoder's first, as in both papers.
    """
    widths = [section.channels * m for m in section.channel_multipliers]
    attending = attention_levels(section, ends.image)

    def blocks(level: int) -> Stages:
        return [
            _stage(build, widths[level], attends=level in attending)
            for _ in range(section.blocks_per_level)
        ]

    def middle() -> Stages:
        if not attending:
            return []
        return [_stage(build, widths[-1], attends=attends) for attends in (True, False)]

    # Networks are built layer by layer in this order, which decides the parameters' first values.
    encoder: Stages = [[build.conv(ends.image[2], widths[0], kernel_size=3, stride=1)]]
    decoder: Stages = [[build.conv(ends.inputs, widths[-1], kernel_size=3, stride=1)]]
    for level, width in enumerate(widths):
        if level:
            encoder.append([build.conv(widths[level - 1], width)])
        encoder += blocks(level)
    encoder += middle()
    decoder += middle()
    for level, width in reversed(list(enumerate(widths))):
        decoder += blocks(level)
        if level:
            decoder.append([build.up(width, widths[level - 1])])
    last = [
        *_norm(build, widths[-1]),
        build.conv(widths[-1], ends.outputs, kernel_size=1, stride=1),
    ]
    encoder.append(last)
    last = [*_norm(build, widths[0]), build.conv(widths[0], ends.image[2], kernel_size=3, stride=1)]
    decoder.append(last)
    return encoder, decoder


def check(section: Any) -> None:
    """Raises an InputError if the number of levels does not fit the downsampling."""
    factor, multipliers = section.downsampling, tuple(section.channel_multipliers)
    if factor != 2 ** (len(multipliers) - 1):
        raise errors.InputError(
            f"config.model.downsampling={factor} must be 2^(levels − 1), but "
            f"channel_multipliers={multipliers} has {len(multipliers)} levels"
        )


def attention_levels(section: Any, shape: tuple[int, int, int]) -> set[int]:
    """Returns the levels whose grids attend, for images of `shape`.

    Raises:
        InputError: no level has one of the `attention_resolutions` as its grid's shorter side.
    """
    asked = tuple(section.get("attention_resolutions", ()))
    sides = [min(shape[:2]) >> level for level in range(len(section.channel_multipliers))]
    if not set(asked) <= set(sides):
        raise errors.InputError(
            f"config.model.attention_resolutions={asked} must be shorter sides of the levels' "
            f"grids, which are {', '.join(map(str, sides))} for images {shape[0]}×{shape[1]}"
        )
    return {level for level, side in enumerate(sides) if side in asked}


def _norm(build: Builder, width: int) -> Layers:
    return [build.norm(width), jax.nn.silu]


def _stage(build: Builder, width: int, *, attends: bool) -> Layers:
    inner: Layers = []
    for _ in range(2):
        inner += [*_norm(build, width), build.conv(width, width, kernel_size=3, stride=1)]
    return [Residual(inner), *([Attention(build, width)] if attends else [])]
