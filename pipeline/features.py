"""What a data set says of an entry beyond its shape and type: its classes and their names."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Classes:
    """An abstract entry of class indices, int32, used where a `jax.ShapeDtypeStruct` would stand.

    The data set promises that every index of column i lies in 0 … num_classes[i] − 1.
    """

    num_classes: tuple[int, ...]  # of one label (shape []), or of each column (shape [n])
    shape: tuple[int, ...]  # of one example's entry, [] or [n]
    dtype: type = np.int32
    names: tuple[str, ...] = ()  # of the columns, where they have names


def label(num_classes: int) -> Classes:
    """Returns the entry of one label with that many classes."""
    return Classes((num_classes,), ())


def factors(sizes: tuple[int, ...], names: tuple[str, ...]) -> Classes:
    """Returns the entry of a row of labels, one for each of the sizes, and what they are called."""
    assert len(sizes) == len(names), (sizes, names)
    return Classes(tuple(sizes), (len(sizes),), names=tuple(names))
