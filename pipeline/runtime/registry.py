"""The file name is the registry: `config.model.name = "x"` means the file `models/x.py`.

A dotted name means a module from outside this package: `my_package.my_model`. It is also searched
for in the current directory, even if the command is an installed script.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.runtime import errors

# Beside the package, in a checkout and in an installation.
CONFIGS = Path(__file__).parents[2] / "configs"
# What a module of each kind must define. The kind is the name of its folder.
NEEDED = {"models": ("Model",), "datasets": ("spec", "load"), "evals": ("make",)}


def names(folder: str) -> tuple[str, ...]:
    """Returns the sorted names of the modules in `pipeline/<folder>/`; imports none of them.

    Packages and modules whose names begin with an underscore are left out: they are parts of
    others.
    """
    path = Path(__file__).parents[1].joinpath(*folder.split("."))
    found = pkgutil.iter_modules([str(path)])
    return tuple(sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_")))


def load(folder: str, name: str, *, field: str, given: str = "") -> ModuleType:
    """Imports `pipeline/<folder>/<name>.py` or, if `name` has a dot, the module of that name.

    Args:
        folder: "models", "datasets" or "evals".
        name: the value of the config field.
        field: the config field that holds it, for the error.
        given: what the user wrote, for the error; "" means that field.

    Raises:
        InputError: there is no such module, it cannot be imported because another one is missing,
            or it lacks what its kind must define. The message says which.
    """
    if "." not in name:
        check(name, names(folder), field=field)
        return importlib.import_module(f"pipeline.{folder}.{name}")
    given = given or f"config.{field}={name!r}"
    module = _outside(name, given)
    for attribute in NEEDED[folder]:
        if not hasattr(module, attribute):
            raise errors.InputError(
                f"{given}: the module {name} ({module.__file__}) defines no `{attribute}`; see "
                "pipeline/models/README.md"
            )
    return module


def config(name: str) -> ModuleType:
    """Imports `configs/<name>.py` of this distribution, whatever else is called `configs`.

    A folder `configs` of the user comes first on Python's path. So ours takes its name, and finds
    the user's further modules after its own.
    """
    package = sys.modules.get("configs")
    if package is None or str(CONFIGS) not in getattr(package, "__path__", ()):
        own = [str(CONFIGS), *getattr(package, "__path__", (str(Path.cwd() / "configs"),))]
        spec = importlib.util.spec_from_file_location(
            "configs", CONFIGS / "__init__.py", submodule_search_locations=own
        )
        assert spec is not None and spec.loader is not None
        for known in [one for one in sys.modules if one.startswith("configs.")]:
            del sys.modules[known]
        package = sys.modules["configs"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return importlib.import_module(f"configs.{name}")


def search_here() -> None:
    """Lets modules in the current directory be found, as `python -m` does but no script."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))


def check(name: str, known: Iterable[str], *, field: str) -> None:
    """Raises an InputError that lists the `known` names if `name` is not among them."""
    if name not in known:
        raise errors.InputError(
            f"config.{field}={name!r} is unknown: choose one of {', '.join(sorted(known))}"
        )


def choose(table: Mapping[str, Any], name: str, *, field: str) -> Any:
    """Returns `table[name]`, or raises the InputError of `check`."""
    check(name, table, field=field)
    return table[name]


def _outside(name: str, given: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise errors.InputError(f"{given}: {name!r} is no name of a module, such as my_package.x")
    search_here()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise errors.InputError(
                f"{given}: there is no module {missing} in {Path.cwd()} or on Python's path "
                "(PYTHONPATH)"
            ) from None
        raise errors.InputError(
            f"{given}: the module {name} needs {missing}, which cannot be imported: {error}"
        ) from error
    except ImportError as error:
        raise errors.InputError(
            f"{given}: the module {name} cannot be imported: {error}"
        ) from error
