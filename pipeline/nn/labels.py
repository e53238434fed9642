"""The --labels flag: rows of classes and attributes, checked against the model's conditions.

A class is given by its name, or by its number. If names of classes are numbers themselves, such as
folders 1 … 10, a number always means the name.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline import datasets
from pipeline.runtime import errors

NAMED = 10  # classes that an error lists
LONGEST = 24  # characters of a name beside a row of a picture


class Rows(NamedTuple):
    """The R rows that the flag requests."""

    texts: tuple[str, ...]  # for the picture's margin
    values: np.ndarray  # [R], or [R, n] if there are n > 1 columns; int32 if all are classes
    entries: dict[str, np.ndarray]  # the same values as entries of a batch, [R, ...] by name
    names: tuple[str, ...] = ()  # with whole names of classes


class Column(NamedTuple):
    """A column of an entry: `num_classes` is None for an attribute."""

    name: str
    num_classes: int | None
    class_names: tuple[str, ...] = ()


def parse(text: str, conditions: Mapping[str, Any]) -> Rows:
    """Parses rows: `cat,dog` or `0,1` of one column, `0,1;0,2` of several, `all` for each class.

    Names that have a comma or semicolon are put between double quotes.

    Args:
        text: the flag's value; an empty text requests no rows.
        conditions: abstract entries by name, in the order of their columns.

    Raises:
        InputError: there are no conditions, or the rows do not fit them.
    """
    if not text:
        return Rows((), np.zeros(0, np.int32), {})
    columns = columns_of(conditions)
    if not columns:
        raise errors.InputError(f"--labels={text}: the run's model has no conditions; leave it out")
    if text == "all":
        return rows(np.arange(_num_classes(columns))[:, None], conditions)
    marks = ";" if len(columns) > 1 or len(_cut(text, ";")) > 1 else ","
    return rows(np.array([_values(row, columns) for row in _cut(text, marks)]), conditions)


def rows(table: np.ndarray, conditions: Mapping[str, Any]) -> Rows:
    """Returns the rows of a table [R, n] of class indices and attributes, a column for each."""
    columns = columns_of(conditions)
    texts = tuple(
        ",".join(_shown(value, column) for value, column in zip(row, columns, strict=True))
        for row in table
    )
    names = tuple(
        ",".join(_named(value, column) for value, column in zip(row, columns, strict=True))
        for row in table
    )
    entries, first = {}, 0
    for name, entry in conditions.items():
        num = math.prod(entry.shape)
        part = table[:, first : first + num].astype(entry.dtype)
        entries[name], first = part.reshape(-1, *entry.shape), first + num
    if all(column.num_classes is not None for column in columns):
        table = table.astype(np.int32)
    return Rows(texts, table[:, 0] if len(columns) == 1 else table, entries, names)


def drawn(name: str, number: int) -> str:
    """Returns the name of a class as a picture can show it: short, and in Latin letters."""
    is_latin = name.encode("latin-1", "ignore").decode("latin-1") == name
    if not (name and is_latin and name.isprintable()):
        return str(number)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 2]}.."


def _shown(value: float, column: Column) -> str:
    if not column.class_names:
        return f"{value:g}"
    return drawn(column.class_names[int(value)], int(value))


def _named(value: float, column: Column) -> str:
    return column.class_names[int(value)] if column.class_names else f"{value:g}"


def columns_of(conditions: Mapping[str, Any]) -> list[Column]:
    """Returns the columns of the conditions: one for each class index and attribute."""
    columns = []
    for name, entry in conditions.items():
        if isinstance(entry, datasets.Classes):
            named = entry.class_names or ((),) * len(entry.num_classes)
            for size, names in zip(entry.num_classes, named, strict=True):
                columns.append(Column(name, size, names))
        else:
            columns += [Column(name, None)] * math.prod(entry.shape)
    return columns


def _num_classes(columns: list[Column]) -> int:
    if len(columns) > 1 or columns[0].num_classes is None:
        raise errors.InputError(
            f"--labels=all needs one column of classes, and the run has {_describe(columns)}: "
            "separate rows by semicolons, --labels='0,1;0,2'"
        )
    return columns[0].num_classes


def _cut(text: str, mark: str) -> list[str]:
    """Cuts at each `mark` that isn't between double quotes."""
    return re.split(f'{mark}(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def _values(row: str, columns: list[Column]) -> list[float]:
    parts = _cut(row, ",")
    if len(parts) != len(columns):
        raise errors.InputError(
            f"--labels: the row {row!r} has {len(parts)} values, and the run needs "
            f"{_describe(columns)}; separate rows by semicolons"
        )
    return [number_of(part, column) for part, column in zip(parts, columns, strict=True)]


def number_of(text: str, column: Column) -> float:
    """Returns the index of the class that `text` names, or the value of an attribute.

    Raises:
        InputError: there is no such class, or it is no number.
    """
    if column.num_classes is None:
        number = _number(text, float)
        if not math.isfinite(number):
            raise errors.InputError(f"--labels: {text!r} must be a number, of {column.name}")
        return number
    plain = re.sub(r'^"(.*)"$', r"\1", text.strip())
    for name in (text, plain):
        if name in column.class_names:
            return column.class_names.index(name)
    number = _number(text, int)
    # A number is no index beside names that are numbers: 0 … 9 would mean two things.
    names_are_numbers = any(not math.isnan(_number(name, int)) for name in column.class_names)
    if names_are_numbers or not 0 <= number < column.num_classes:
        raise no_class(text, column, like=plain)
    return number


def no_class(given: Any, column: Column, *, like: str = "") -> errors.InputError:
    """Returns the error for what is no class of the column; it names classes `like` that text."""
    return errors.InputError(
        f"--labels: {given!r} is no class of {column.name}: {_allowed(like, column)}"
    )


def _number(text: str, kind: type) -> float:
    try:
        return kind(text)
    except ValueError:
        return math.nan


def _allowed(text: str, column: Column) -> str:
    names, last = column.class_names, (column.num_classes or 0) - 1
    if not names or names == tuple(map(str, range(len(names)))):
        return f"allowed are 0 to {last}"
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(text.casefold(), folded)]
    listed = ", ".join(map(_written, names[:NAMED])) + (" …" if len(names) > NAMED else "")
    hint = f"did you mean {' or '.join(map(_written, near))}? " if near else ""
    return f"{hint}There are {len(names)} classes: {listed}"


def _written(name: str) -> str:
    """Returns a name as the flag takes it."""
    return f'"{name}"' if name != name.strip() or set(name) & set(",;") or name == "all" else name


def _describe(columns: Sequence[Column]) -> str:
    """Returns, for example, "2 columns (label: 0 to 9, height: a number)"."""
    ranges = [
        f"{name}: {'a number' if size is None else f'0 to {size - 1}'}" for name, size, _ in columns
    ]
    return f"{len(columns)} column{'s' if len(columns) > 1 else ''} ({', '.join(ranges)})"
