"""The file name is the registry: `config.model.name = "x"` is the file `models/x.py`."""

import importlib
import pkgutil
from types import ModuleType

from pipeline import errors


def names(folder: str) -> tuple[str, ...]:
    """Returns the names of the modules in `pipeline/<folder>/`, sorted."""
    package = importlib.import_module(f"pipeline.{folder}")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def load(folder: str, name: str, *, field: str) -> ModuleType:
    """Imports `pipeline/<folder>/<name>.py`.

    Args:
        folder: "models", "datasets" or "evals".
        name: the value that the config gives.
        field: the config field that holds it, for the error.

    Raises:
        InputError: no such file; the message lists those that exist.
    """
    known = names(folder)
    if name not in known:
        raise errors.InputError(
            f"config.{field}={name!r} is unknown: choose one of {', '.join(known)}"
        )
    return importlib.import_module(f"pipeline.{folder}.{name}")


def choose(table: dict, name: str, *, field: str):
    """Returns `table[name]`, or raises an `InputError` that lists the known names."""
    if name not in table:
        raise errors.InputError(
            f"config.{field}={name!r} is unknown: choose one of {', '.join(sorted(table))}"
        )
    return table[name]
