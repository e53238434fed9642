"""Small networks of fixed form: `dense`, `conv` and `residual`.

As in `nn.networks`, no activation follows the last layer.
"""

import itertools
from typing import Any

import jax

from pipeline.nn.grids.layers import Builder, Ends, Layers, Pair, Residual


def dense(section: Any, build: Builder, ends: Ends) -> Pair:
    """An MLP on each f×f patch, with the layers `hidden`, mirrored in the decoder."""
    factor, widths = section.downsampling, tuple(section.hidden)
    encoder: Layers = [build.conv(ends.image[2], widths[0], kernel_size=factor, stride=factor)]
    decoder: Layers = [build.conv(ends.inputs, widths[-1], kernel_size=1, stride=1)]
    for before, after in itertools.pairwise(widths):
        encoder += [jax.nn.relu, build.conv(before, after, kernel_size=1, stride=1)]
    for before, after in itertools.pairwise(widths[::-1]):
        decoder += [jax.nn.relu, build.conv(before, after, kernel_size=1, stride=1)]
    encoder += [jax.nn.relu, build.conv(widths[-1], ends.outputs, kernel_size=1, stride=1)]
    decoder += [jax.nn.relu, build.up(widths[0], ends.image[2], kernel_size=factor, stride=factor)]
    return [encoder], [decoder]


def conv(section: Any, build: Builder, ends: Ends) -> Pair:
    """The network of Keras' example: 3×3 convolutions of 32 and 64 channels, stride 2; f = 4."""
    del section
    encoder: Layers = [
        build.conv(ends.image[2], 32, kernel_size=3),
        jax.nn.relu,
        build.conv(32, 64, kernel_size=3),
        jax.nn.relu,
        build.conv(64, ends.outputs, kernel_size=1, stride=1),
    ]
    decoder: Layers = [
        build.up(ends.inputs, 64, kernel_size=3),
        jax.nn.relu,
        build.up(64, 32, kernel_size=3),
        jax.nn.relu,
        build.up(32, ends.image[2], kernel_size=3, stride=1),
    ]
    return [encoder], [decoder]


def residual(section: Any, build: Builder, ends: Ends) -> Pair:
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
        build.conv(ends.image[2], 64),
        jax.nn.relu,
        build.conv(64, 128),
        jax.nn.relu,
        build.conv(128, 128, kernel_size=3, stride=1),
        jax.nn.relu,
        *blocks(),
        jax.nn.relu,
        build.conv(128, ends.outputs, kernel_size=1, stride=1),
    ]
    # No ReLU stands before the blocks, because each begins with one.
    decoder: Layers = [
        build.conv(ends.inputs, 128, kernel_size=3, stride=1),
        *blocks(),
        jax.nn.relu,
        build.up(128, 64),
        jax.nn.relu,
        build.up(64, ends.image[2]),
    ]
    return [encoder], [decoder]
