"""The file name is the registry: `config.model.name = "x"` is the file `models/x.py`."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from pipeline.runtime import errors


def names(folder: str) -> tuple[str, ...]:
    """Returns the names of the modules in `pipeline/<folder>/`, sorted.

    Packages, and modules whose names begin with an underscore, are parts of others.
    """
    package = importlib.import_module(f"pipeline.{folder}")
    found = pkgutil.iter_modules(package.__path__)
    return tuple(sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_")))


def load(folder: str, name: str, *, field: str) -> ModuleType:
    """Imports `pipeline/<folder>/<name>.py`.

    Args:
        folder: "models", "datasets" or "evals".
        name: the value that the config gives.
        field: the config field that holds it, for the error.

    Raises:
        InputError: no such file; the message lists those that exist.
    """
    check(name, names(folder), field=field)
    return importlib.import_module(f"pipeline.{folder}.{name}")


def check(name: str, known: Iterable[str], *, field: str) -> None:
    """Raises an `InputError` that lists the `known` names where `name` is none of them."""
    if name not in known:
        raise errors.InputError(
            f"config.{field}={name!r} is unknown: choose one of {', '.join(sorted(known))}"
        )


def choose(table: Mapping[str, Any], name: str, *, field: str) -> Any:
    """Returns `table[name]`, checked as `check` does."""
    check(name, table, field=field)
    return table[name]
