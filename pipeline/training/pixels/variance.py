"""The variance of the training pixels, by which VQ-VAE divides its squared error.

If the config has 0, the variance is measured in whole numbers; floats are rounded to 65,536 levels
of their range. So every process and every start
finds the same value, and no file needs to keep it.
"""

import math
from typing import Any

import numpy as np

from pipeline import datasets
from pipeline.runtime import errors, run_config
from pipeline.training import batching

LEVELS = 2**16 - 1
PIXELS = 2**29  # at most so many values are read: one second of work, half a gigabyte


def measured(config: Any, source: datasets.Source) -> Any:
    """Returns a copy of the config with `data.variance` measured, or the config if it is not 0.

    The variance is that of all pixels and channels in [0, 1] together, over all training examples.
    If those have more than 2^29 values, the seed draws as many examples as make up that number.
    The sums are whole numbers, so every process and every resumed run finds the same value. The
    run's `config.json` keeps the 0.

    Raises:
        InputError: all pixels are equal.
    """
    if config.data.variance:
        return config
    pixels = datasets.pixels_of(datasets.example_spec(config)["image"])
    num = min(len(source), max(1, PIXELS // math.prod(pixels.shape)))
    chosen = np.arange(num)
    if num < len(source):
        seed = run_config.data_seed(config)
        chosen = np.sort(np.random.RandomState(seed % 2**32).permutation(len(source))[:num])
    # Sums of whole numbers have no rounding that could depend on the order or the batch.
    count, total, squares = 0, 0, 0
    for first in range(0, num, 1024):
        batch = batching.read(source, chosen[first : first + 1024], config)
        levels, most = _levels(batch["image"], pixels)
        count, total = count + levels.size, total + int(levels.sum(dtype=np.uint64))
        squares += int(np.square(levels).sum(dtype=np.uint64))
    if count * squares == total**2:
        raise errors.InputError(
            f"the training examples of config.data.name={config.data.name!r} have no variance to "
            "measure: all pixels are equal"
        )
    config = config.copy_and_resolve_references()
    config.data.variance = (count * squares - total**2) / (most * count) ** 2
    return config


def _levels(image: np.ndarray, pixels: datasets.Pixels) -> tuple[np.ndarray, int]:
    """Returns pixels as whole numbers whose squares their dtype holds, and the width of the range.

    A variance doesn't depend on where the range begins.
    """
    if image.dtype.kind == "u":
        low, high = pixels.ends
        return image.astype(np.uint16 if image.dtype == np.uint8 else np.uint64), int(high) - int(
            low
        )
    return np.rint(pixels.unit(image) * np.float32(LEVELS)).astype(np.uint64), LEVELS
