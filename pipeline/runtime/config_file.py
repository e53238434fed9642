"""The file that --config names, and the overrides of its fields, read before absl sees them.

absl's own errors are long, and a mistake in a file of the user ends it with a traceback.
"""

import difflib
import inspect
import os
import runpy
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime import errors, ranges, registry

# Files in configs/ that no run starts from.
HIDDEN = ("__init__", "default", "image_terms", "scalable")
PLAIN = (bool, int, float, str, type(None))


def read(arguments: Sequence[str]) -> tuple[list[str], Any]:
    """Loads the config that `--config` names; returns the arguments without it, and the config.

    Without that flag the config is None. Overrides of a schedule by a number are written out.

    Raises:
        InputError: the file is missing or has a mistake, or a field is overridden that it lacks.
    """
    rest, given, skipped = list(arguments[:1]), "", False
    options = list(arguments[1:])
    for at, text in enumerate(options):
        if text == "--":
            rest += options[at:]
            break
        if skipped:
            skipped = False
        elif text in ("--config", "-config"):
            given, skipped = (options[at + 1] if at + 1 < len(options) else ""), True
        elif text.startswith(("--config=", "-config=")):
            given = text.partition("=")[2]
        else:
            rest.append(text)
    if not given:
        return rest, None
    config = load(given)
    return [rest[0], *expanded(rest[1:], config)], config


def load(given: str) -> Any:
    """Returns the config of FILE or FILE:PRESETS, locked; raises an InputError as `made` does."""
    config = made(given)
    _check(given.partition(":")[0], config)
    return config.lock()


def made(given: str, *, by: str = "get_config", like: str = "configs/default.py") -> Any:
    """Returns the ConfigDict that the function `by` of FILE or FILE:PRESETS makes, unchecked.

    Args:
        given: FILE or FILE:PRESETS.
        by: the name of the function.
        like: a file that shows how to write one; shipped ones lie in its folder.

    Raises:
        InputError: there is no such file, or it cannot be run, or it makes something else.
    """
    from ml_collections import ConfigDict

    name, _, presets = given.partition(":")
    path = find(name, Path(like).parent)
    registry.config("default")  # so that the file's `from configs import …` finds ours
    registry.search_here()
    try:
        function = runpy.run_path(str(path)).get(by)
        if not callable(function):
            raise errors.InputError(f"--config={name} defines no {by}(): see {like}")
        takes = inspect.signature(function).parameters
        if presets and not takes:
            raise errors.InputError(
                f"--config={given}: {by}() of this file takes no presets, leave out :{presets}"
            )
        config = function(presets) if takes else function()
    except errors.InputError:
        raise
    except (Exception, SystemExit) as error:
        raise errors.InputError(_fault(path, error)) from None
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise errors.InputError(
            f"--config={name}: {by}() returns a {kind}, not a ConfigDict: see {like}"
        )
    return config


def find(name: str, folder: Path = Path("configs")) -> Path:
    """Returns the path of a config: a file, or the name of a shipped one, such as beta_vae.

    Raises:
        InputError: there is no such file.
    """
    path = Path(name)
    if os.path.isfile(path):  # of a name that is too long, Path.is_file raises an error
        return path
    # After an installation there is no folder configs/ here, and the docs' commands still work.
    shipped = registry.CONFIGS.parent / folder
    own = shipped / f"{path.name.removesuffix('.py')}.py"
    if path.parent in (Path(), folder) and os.path.isfile(own):
        return own
    ours = sorted(one.stem for one in shipped.glob("*.py") if one.stem not in HIDDEN)
    raise errors.InputError(f"--config={name}: there is no such file; ours are {', '.join(ours)}")


def expanded(arguments: Iterable[str], config: Any) -> list[str]:
    """Returns the arguments; `--config.model.beta=4` becomes the override of a constant schedule.

    Raises:
        InputError: the config has no such field.
    """
    from pipeline.runtime import run_config

    flat, found = run_config.flatten(config), []
    schedules = run_config.schedules(flat)
    for text in arguments:
        name, equals, value = text.lstrip("-").partition("=")
        field = name.removeprefix("config.")
        if not name.startswith("config.") or not text.startswith("-"):
            found.append(text)
            continue
        if "--config." in value:
            raise errors.InputError(
                f"{text}: two overrides in one argument; give each its own: --config.FIELD=VALUE"
            )
        if field in schedules and equals:
            found += [f"--config.{field}.schedule=constant", f"--config.{field}.end={value}"]
            continue
        _check_field(field, list(flat))
        found.append(text)
    return found


def fields_like(name: str) -> list[str]:
    """Returns the fields of configs/default.py with this name, alone or in a section."""
    from pipeline.runtime import run_config

    fields = run_config.flatten(run_config.shipped()[0])
    return [field for field in fields if name in (field, field.rpartition(".")[2])][:3]


def _check_field(field: str, known: Sequence[str]) -> None:
    """Raises an InputError that suggests similar names if the config has no such field."""
    if field not in known:
        inside = [name for name in known if name.startswith(f"{field}.")]
        ends = [name for name in known if name.endswith(f".{field}")]
        close = inside[:3] or ends[:3] or difflib.get_close_matches(field, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see configs/default.py"
        raise errors.InputError(f"--config.{field}: the config has no such field; {hint}")


def _check(name: str, config: Any) -> None:
    """Raises an InputError if the config lacks a field, or holds a value of an unusable type."""
    from pipeline.runtime import run_config

    flat = run_config.flatten(config)
    lacking = run_config.flatten(run_config.shipped()[0]).keys() - flat.keys()
    if lacking:
        raise errors.InputError(
            f"--config={name} lacks config.{min(lacking)}: let get_config() begin with "
            "configs.default.get_config()"
        )
    for field, value in flat.items():
        for one in value if isinstance(value, list) else [value]:
            if type(one) not in PLAIN:
                raise errors.InputError(
                    f"--config={name}: config.{field} holds a {type(one).__name__}: only numbers, "
                    "texts, and tuples of them can be saved"
                )
    model = flat["model.name"]
    for known in run_config.shipped(model if isinstance(model, str) else ""):
        for field, value in run_config.flatten(known).items():
            if field in flat and field not in ranges.PAIRS and not _alike(flat[field], value):
                raise errors.InputError(
                    f"--config={name}: config.{field}={flat[field]!r} must be like {value!r}"
                )


def _alike(value: Any, known: Any) -> bool:
    """Says whether a value has the type of a known one; a float may be a whole number."""
    return type(value) is type(known) or (type(value), type(known)) == (int, float)


def _fault(path: Path, error: BaseException) -> str:
    """Returns one line with the file and the line of an exception that a config file raised."""
    line = getattr(error, "lineno", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
    where = f"{path}, line {line}" if line else str(path)
    return f"--config: {where}: {type(error).__name__}: {' '.join(str(error).split())}"
