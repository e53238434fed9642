"""The --labels flag: rows of classes and attributes, checked against the model's conditions."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline import datasets
from pipeline.runtime import errors


class Rows(NamedTuple):
    """The R rows that the flag requests."""

    texts: tuple[str, ...]  # for the picture's margin
    values: np.ndarray  # [R], or [R, n] if there are n > 1 columns; int32 if all are classes
    entries: dict[str, np.ndarray]  # the same values as entries of a batch, [R, ...] by name


class Column(NamedTuple):
    """A column of an entry: `num_classes` is None for an attribute."""

    name: str
    num_classes: int | None


def parse(text: str, conditions: Mapping[str, Any]) -> Rows:
    """Parses rows: `0,1,2` of one column, `0,1;0,2` of several, `all` for each class of one.

    Args:
        text: the flag's value; an empty text requests no rows.
        conditions: abstract entries by name, in the order of their columns.

    Raises:
        InputError: there are no conditions, or the rows do not fit them.
    """
    if not text:
        return Rows((), np.zeros(0, np.int32), {})
    columns = [column for name, entry in conditions.items() for column in _columns(name, entry)]
    if not columns:
        raise errors.InputError(f"--labels={text}: the run's model has no conditions; leave it out")
    table = np.array([_values(row, columns) for row in _split(text, columns)])
    texts = tuple(",".join(f"{value:g}" for value in row) for row in table)
    entries, first = {}, 0
    for name, entry in conditions.items():
        num = math.prod(entry.shape)
        part = table[:, first : first + num].astype(entry.dtype)
        entries[name], first = part.reshape(-1, *entry.shape), first + num
    if all(column.num_classes is not None for column in columns):
        table = table.astype(np.int32)
    return Rows(texts, table[:, 0] if len(columns) == 1 else table, entries)


def _columns(name: str, entry: Any) -> list[Column]:
    if isinstance(entry, datasets.Classes):
        return [Column(name, num_classes) for num_classes in entry.num_classes]
    return [Column(name, None)] * math.prod(entry.shape)


def _split(text: str, columns: list[Column]) -> list[str]:
    if text != "all":
        return text.split(";" if len(columns) > 1 or ";" in text else ",")
    if len(columns) > 1 or columns[0].num_classes is None:
        raise errors.InputError(
            f"--labels=all needs one column of classes, and the run has {_describe(columns)}: "
            "separate rows by semicolons, --labels='0,1;0,2'"
        )
    return [str(index) for index in range(columns[0].num_classes)]


def _values(row: str, columns: list[Column]) -> list[float]:
    parts = row.split(",")
    if len(parts) != len(columns):
        raise errors.InputError(
            f"--labels: the row {row!r} has {len(parts)} values, and the run needs "
            f"{_describe(columns)}; separate rows by semicolons"
        )
    return [_value(part, column) for part, column in zip(parts, columns, strict=True)]


def _value(text: str, column: Column) -> float:
    try:
        value = float(text) if column.num_classes is None else int(text)
    except ValueError:
        value = math.nan
    if column.num_classes is None:
        if not math.isfinite(value):
            raise errors.InputError(f"--labels: {text!r} must be a number, of {column.name}")
    elif not 0 <= value < column.num_classes:
        raise errors.InputError(
            f"--labels: {text!r} is no class of {column.name}: allowed are 0 to "
            f"{column.num_classes - 1}"
        )
    return value


def _describe(columns: list[Column]) -> str:
    """Returns, for example, "2 columns (label: 0 to 9, height: a number)"."""
    ranges = [
        f"{name}: {'a number' if size is None else f'0 to {size - 1}'}" for name, size in columns
    ]
    return f"{len(columns)} column{'s' if len(columns) > 1 else ''} ({', '.join(ranges)})"
