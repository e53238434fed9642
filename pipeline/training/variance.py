"""The variance of the training pixels, by which VQ-VAE divides its squared error.

The decision: where the config leaves it at 0 it is measured, in whole numbers, so that every
process and every start finds the same value and none need be kept.
"""

import math
from typing import Any

import numpy as np

from pipeline import datasets
from pipeline.runtime import errors
from pipeline.training import batching

PIXELS = 2**29  # values that are read at most: a second's work, half a gigabyte


def measured(config: Any, source: datasets.Source) -> Any:
    """Returns the config with `data.variance` measured where it is 0; the given one stays as it is.

    The variance is that of all pixels and channels in [0, 1] together, over all training examples,
    or as many of large ones, drawn by the seed, as make 2^29 values. Whole numbers are summed:
    every process and every resumed run finds the same value; in the run's `config.json` it stays 0.

    Raises:
        InputError: all pixels are equal.
    """
    if config.data.variance:
        return config
    shape = datasets.example_spec(config)["image"].shape
    num = min(len(source), max(1, PIXELS // math.prod(shape)))
    chosen = np.arange(num)
    if num < len(source):
        chosen = np.sort(np.random.RandomState(config.seed % 2**32).permutation(len(source))[:num])
    count, total, squares = 0, 0, 0
    for first in range(0, num, 1024):
        batch = batching.read(source, chosen[first : first + 1024], config)
        pixels = batch["image"].astype(np.uint16)
        count, total = count + pixels.size, total + int(pixels.sum(dtype=np.uint64))
        squares += int(np.square(pixels).sum(dtype=np.uint64))
    if count * squares == total**2:
        raise errors.InputError(
            f"the training examples of config.data.name={config.data.name!r} have no variance to "
            "measure: all pixels are equal"
        )
    config = config.copy_and_resolve_references()
    config.data.variance = (count * squares - total**2) / (255 * count) ** 2
    return config
