"""The file name is the registry: `config.model.name = "x"` is the file `models/x.py`."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

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


def check_model(config: Any, method: str, *, what: str, evaluation: str) -> None:
    """Raises an InputError where the run's model lacks the `method` that an evaluation needs.

    Args:
        config: the run's.
        method: of `Model`.
        what: the model then has none of, for the error.
        evaluation: of that name.
    """
    name = config.model.name
    if not hasattr(_model(name), method):
        fitting = [each for each in names("models") if hasattr(_model(each), method)]
        raise errors.InputError(
            f"config.evals has {evaluation!r}, but config.model.name={name!r} has no {what}: take "
            f"it out, or choose one of {', '.join(fitting)}"
        )


def _model(name: str) -> Any:
    return load("models", name, field="model.name").Model
