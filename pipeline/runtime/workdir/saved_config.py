"""The config that a run keeps, `config.json`, and its copy with a digest, `.config.json`.

A digit of config.json that changes is no mistake that JSON shows, and would make another run of it.
So the copy decides as long as its digest holds, and config.json only if there is no whole copy.
"""

import functools
import json
from pathlib import Path
from typing import Any

from pipeline.runtime import errors, files

NAME, COPY = "config.json", ".config.json"


def exists(workdir: Path) -> bool:
    """Says whether the folder holds a saved config, whole or damaged."""
    return any(files.exists(workdir / name) for name in (NAME, COPY))


def read(workdir: Path) -> dict[str, Any]:
    """Returns the flat fields of a run's config; warns if config.json is not as it was written.

    Raises:
        InputError: neither config.json nor its copy is whole.
    """
    path, copy = workdir / NAME, _copy(workdir)
    fields, fault = _fields(path)
    if copy:
        if why := fault or _difference(fields, copy):
            _warn(
                f"{path} is damaged or was edited ({why}): its copy {COPY} is used. To use {NAME} "
                "as it is, remove the copy"
            )
        return copy
    if fault:
        raise errors.InputError(
            f"{path} is damaged ({fault}) and has no whole copy: train one step with this run's "
            "settings in a new --workdir (--config.total_steps=1), and copy its config.json here"
        )
    return fields


def write(workdir: Path, fields: dict[str, Any]) -> None:
    """Replaces config.json and its copy; a config.json that `read` did not trust is set aside.

    Raises:
        OSError: they cannot be written.
    """
    path, copy = workdir / NAME, _copy(workdir)
    before, fault = _fields(path)
    if files.exists(path) and (fault or (copy and _difference(before, copy))):
        files.set_aside(path)
    if files.exists(workdir / COPY) and not (workdir / COPY).is_file():
        files.set_aside(workdir / COPY)
    files.write(path, json.dumps(fields, indent=2, sort_keys=True) + "\n")
    kept = {"config": fields, "digest": files.digest(fields)}
    files.write(workdir / COPY, json.dumps(kept, sort_keys=True) + "\n")


def _copy(workdir: Path) -> dict[str, Any]:
    """Returns the fields of the copy; {} if it is missing or damaged."""
    kept, _ = _read(workdir / COPY)
    fields = kept.get("config")
    if isinstance(fields, dict) and kept.get("digest") == files.digest(fields):
        return fields
    return {}


def _fields(path: Path) -> tuple[dict[str, Any], str]:
    """Returns the fields of a config, and its fault, which is "" if it is whole."""
    fields, fault = _read(path)
    if fault:
        return {}, fault
    fault = fault_of(fields)
    return ({}, fault) if fault else (fields, "")


def fault_of(fields: dict[str, Any]) -> str:
    """Returns why these cannot be the flat fields of a config, or ""."""
    sections = {name[:at] for name in fields for at in range(len(name)) if name[at] == "."}
    for name, value in fields.items():
        if name in sections or not all(name.split(".")) or isinstance(value, dict):
            return f"{name!r} is no field"
    if not isinstance(fields.get("model.name", ""), str):
        return f"model.name={fields['model.name']!r} is no text"
    return ""


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """Returns the table in a file of JSON, and its fault, which is "" if there is none."""
    try:
        if files.is_odd(path):  # a pipe would never end
            return {}, "it is no file"
        table = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}, "it is missing"
    except PermissionError as error:
        return {}, str(error.strerror)
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        return {}, str(error)
    return (table, "") if isinstance(table, dict) and table else ({}, "no table of fields")


def _difference(fields: dict[str, Any], copy: dict[str, Any]) -> str:
    """Returns which field differs from the copy's, or ""."""
    for name in sorted({**fields, **copy}):
        if files.digest(fields.get(name)) != files.digest(copy.get(name)):
            return f"config.{name} is {fields.get(name)!r}, was {copy.get(name)!r}"
    return ""


@functools.cache  # a command reads the config several times, and says this once
def _warn(text: str) -> None:
    errors.say(f"warning: {text}")
