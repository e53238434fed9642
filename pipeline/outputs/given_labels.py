"""Labels as Python gives them to a trained model: checked, as entries of a batch.

Whole numbers are indices of classes, as in the data set's arrays. A text is the name of a class, or
what the flag --labels takes in its place.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline import datasets
from pipeline.nn import labels
from pipeline.outputs import given_arrays
from pipeline.runtime import errors


def entries(given: Any, conditions: Mapping[str, Any], num: int) -> dict[str, np.ndarray] | None:
    """Returns the labels of `num` examples, [num, ...] by name; None if none are given.

    Args:
        given: for one condition an array or list, with a row for each example or one for all; for
            several a mapping from their names to those.
        conditions: abstract entries of the data set by name.
        num: number of examples.

    Raises:
        InputError: the labels do not fit the conditions.
    """
    if given is None:
        return None
    names = ", ".join(conditions)
    if not conditions:
        raise errors.InputError(
            f"labels={given_arrays.shown(given)}: the run's model has no conditions; leave them out"
        )
    if not isinstance(given, Mapping):
        if len(conditions) > 1:
            raise errors.InputError(
                f"labels={given_arrays.shown(given)}: the run's model has the conditions {names}: "
                "give a dictionary with an entry for each"
            )
        given = dict.fromkeys(conditions, given)
    if set(given) != set(conditions):
        raise errors.InputError(
            f"labels of {', '.join(map(str, given)) or 'nothing'}: the run's model has the "
            f"conditions {names}: give those"
        )
    return {name: _entry(given[name], name, conditions[name], num) for name in conditions}


def _entry(given: Any, name: str, entry: Any, num: int) -> np.ndarray:
    """Returns the rows of one condition, [num, *entry.shape], in its dtype."""
    found = given_arrays.array(given, f"labels of {name}")
    shape = tuple(entry.shape)
    if found.shape not in (shape, (1, *shape), (num, *shape)):
        wanted = f"{[num, *shape]} for {num} examples, or {list(shape)} for all alike"
        raise errors.InputError(
            f"labels of {name} have the shape {list(found.shape)}: give {wanted}"
        )
    columns = labels.columns_of({name: entry})
    cells = found.reshape(-1, len(columns))
    if isinstance(entry, datasets.Classes):
        table = np.stack([_classes(cells[:, i], one) for i, one in enumerate(columns)], axis=1)
    else:
        table = _attributes(cells, name)
    rows = table.astype(entry.dtype).reshape(-1, *shape)
    return np.ascontiguousarray(np.broadcast_to(rows, (num, *shape)))


def _classes(cells: np.ndarray, column: labels.Column) -> np.ndarray:
    """Returns the class indices [n] of one column."""
    if cells.dtype.kind == "U":
        return np.array([labels.number_of(str(text), column) for text in cells])
    if cells.dtype.kind not in "iu":
        raise errors.InputError(
            f"labels of {column.name} are {cells.dtype}: give whole numbers or names of classes"
        )
    assert column.num_classes is not None
    wrong = (cells < 0) | (cells >= column.num_classes)
    if wrong.any():
        raise labels.no_class(int(cells[wrong.argmax()]), column)
    return cells


def _attributes(cells: np.ndarray, name: str) -> np.ndarray:
    if cells.dtype.kind not in "iuf" or not np.isfinite(cells).all():
        raise errors.InputError(
            f"labels of {name}={given_arrays.shown(cells)} must be finite numbers"
        )
    return cells
