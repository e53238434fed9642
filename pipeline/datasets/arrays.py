"""Your own NumPy arrays: an .npy or .npz file, or a folder of .npy files, which are mapped.

`image` is [N, H, W, C] of uint8, uint16, float16 or float32. Beside it there may be `label` [N] and
`factors` [N, k], whole numbers from 0 on, and further arrays of floats, [N] or [N, k], attributes.
A folder may have the parts `train` and `heldout`, each a folder, an .npy or an .npz itself. Without
them the seed chooses `data.heldout_examples` examples.

`data.low` and `data.high` say which values become 0 and 1. Whole numbers may leave this out if they
fill their dtype; floats may not.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import _array_files
from pipeline.runtime import errors

RARE = 2**14  # of uint16; values of 12 or 14 bits stay below it
LOOKED_AT = 64  # examples


class Arrays(NamedTuple):
    """The N examples of a split."""

    arrays: dict[str, np.ndarray]  # `image` and others, [N, ...]
    spec: dict[str, Any]  # one abstract example

    def __len__(self) -> int:
        """Returns N."""
        return len(self.arrays["image"])

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each array at the indices [n], in the dtype of the `spec`."""
        return {
            name: array[indices].astype(self.spec[name].dtype, copy=False)
            for name, array in self.arrays.items()
        }


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example; opens the files, and reads labels and a few images.

    Raises:
        InputError: as in `load`.
    """
    return _described(_array_files.read(config.path), config)


def load(config: Any) -> dict[str, Arrays]:
    """Opens the arrays: `all`, or `train` and `heldout` if the folder has these parts.

    Raises:
        InputError: a file is missing, damaged or of another kind, arrays do not fit together, or
            the range of the images is not clear.
    """
    parts = _array_files.read(config.path)
    example = _described(parts, config)
    return {part: Arrays(arrays, example) for part, arrays in parts.items()}


def _described(parts: dict[str, dict[str, np.ndarray]], config: Any) -> dict[str, Any]:
    """Returns the abstract example; a class that only one part has counts in both."""
    found: dict[str, Any] = {}
    for name, array in next(iter(parts.values())).items():
        columns = [p[name].reshape(len(p[name]), -1) for p in parts.values()]
        if name == "image":
            found[name] = _pixels(array, config)
        elif name in _array_files.CLASSES:
            sizes = tuple(int(s) + 1 for s in np.max([c.max(axis=0) for c in columns], axis=0))
            names = tuple(f"factor_{i}" for i in range(len(sizes)))
            found[name] = (
                datasets.label(sizes[0]) if name == "label" else datasets.factors(sizes, names)
            )
        else:
            found[name] = jax.ShapeDtypeStruct(array.shape[1:], np.float32)
    return found


def _pixels(image: np.ndarray, config: Any) -> datasets.Pixels:
    """Returns dtype and range of the images: the stated range, or the whole one of the dtype."""
    dtype, shape = image.dtype.newbyteorder("="), image.shape[1:]
    if config.low != config.high:
        return datasets.Pixels(shape, dtype, config.low, config.high)
    if dtype.kind == "f" and dtype.itemsize <= 4:
        raise errors.InputError(
            f"config.data.path={config.path} has images of {dtype.name}, whose range is not known: "
            "state which values become 0 and 1, such as --config.data.low=0 --config.data.high=1"
        )
    if dtype == np.uint16:
        rows = np.linspace(0, len(image) - 1, min(len(image), LOOKED_AT)).round().astype(np.int64)
        if 0 < (most := int(image[rows].max())) < RARE:
            raise errors.InputError(
                f"config.data.path={config.path} has images of uint16 without a value above {most}:"
                " state what becomes 1, such as --config.data.high="
                f"{2 ** max(8, most.bit_length()) - 1}, or 65535 for the whole range"
            )
    return datasets.Pixels(shape, dtype)
