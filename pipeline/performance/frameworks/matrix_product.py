"""A limit, not a framework: one matrix product of as many operations as the work's step has.

XLA compiles it as it compiles the products in a step. A step takes longer than this product because
of its shapes and its other operations.
"""

import math
from collections.abc import Iterator, Sequence

import jax

from pipeline.mesh import compiling
from pipeline.performance.frameworks import Run
from pipeline.performance.frameworks.works import Layer, Work


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` is ignored."""
    del options
    size = round((operations(work) / 2) ** (1 / 3))
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    multiply = compiling.jit(lambda a: a @ a)

    def steps(num: int) -> None:
        for _ in range(num):
            result = multiply(matrix)
        jax.block_until_ready(result)

    return Run(steps, f"jax {jax.__version__}", jax.default_backend())


def operations(work: Work) -> float:
    """Returns the multiplications and additions of the layers in one step, over the whole batch.

    The gradients of a layer's inputs and of its weights cost as much again each as its values. The
    first layer needs no input gradient, because its input is the image. A prior's first layer is a
    look-up of codes, which counts as nothing.
    """
    places = math.prod(work.shape) if work.is_prior else 1
    first, *rest = _layers((*work.encoder, *work.decoder), work.shape[0], places)
    return work.config.batch_size * (2.0 * first + 3.0 * sum(rest))


def _layers(layers: Sequence[Layer], side: int, places: int = 1) -> Iterator[float]:
    """Yields the operations of each layer's values for one example.

    It has `side` × `side` pixels, or `places` codes.
    """
    for kind, *sizes in layers:
        match kind:
            case "linear":
                inputs, outputs = sizes
                yield 2.0 * places * inputs * outputs
            case "embedding":
                yield 0.0
            case "block":
                width = sizes[0]
                # Scores of all pairs of places, half of which are masked, and their mixtures.
                yield 2.0 * places * (12 * width**2 + 2 * places * width)
            case "grid":
                side = sizes[0]
            case "conv":
                inputs, outputs, kernel, stride = sizes
                side //= stride
                yield 2.0 * side**2 * kernel**2 * inputs * outputs
            case "up":
                inputs, outputs, kernel, stride = sizes
                yield 2.0 * side**2 * kernel**2 * inputs * outputs
                side *= stride
            case "residual":
                yield from _layers(sizes[0], side)
