"""Class indices of a data set: their numbers, their names, and the names of their columns."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Classes:
    """An abstract entry of class indices, int32; it takes the place of a `jax.ShapeDtypeStruct`.

    The data set guarantees that every index of column i lies in 0 … num_classes[i] − 1.
    """

    num_classes: tuple[int, ...]  # of one label (shape []), or of each column (shape [n])
    shape: tuple[int, ...]  # of one example's entry, [] or [n]
    dtype: type = np.int32
    names: tuple[str, ...] = ()  # of the columns, if they have names
    # of the classes of each column, () for a column whose classes are only numbers; (): for all
    class_names: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Classes":
        """Returns the entry whose fields JSON kept; tuples became lists there."""
        fields = {name: _tuple(value) for name, value in plain.items() if name != "dtype"}
        return cls(**fields)


def label(num_classes: int, class_names: Sequence[str] = ()) -> Classes:
    """Returns the abstract entry of one label with `num_classes` classes, and their names."""
    assert len(class_names) in (0, num_classes), (num_classes, class_names)
    return Classes((num_classes,), (), class_names=(tuple(class_names),) if class_names else ())


def factors(
    sizes: tuple[int, ...],
    names: tuple[str, ...],
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> Classes:
    """Returns the abstract entry of a row of labels, with a size and a name for each.

    Args:
        sizes: the numbers of classes.
        names: of the columns.
        class_names: of the classes, by the column's name, if they have names.
    """
    assert len(sizes) == len(names), (sizes, names)
    named = tuple(tuple((class_names or {}).get(name, ())) for name in names)
    assert all(len(n) in (0, size) for n, size in zip(named, sizes, strict=True)), named
    return Classes(tuple(sizes), (len(sizes),), names=tuple(names), class_names=named)


def class_names(example: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the names of classes by the name of their column, of all columns that have them."""
    return {
        column: list(names)
        for name, entry in example.items()
        if isinstance(entry, Classes)
        for column, names in zip(entry.names or (name,), entry.class_names, strict=False)
        if names
    }


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
