"""A run's config: checked before anything is built, saved with the run, compared on resuming."""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from pipeline import errors, named

# What may change when a run is resumed: its length, what is shown and kept, and where it runs.
MAY_CHANGE = (
    "total_steps",
    "log_every_steps",
    "eval_every_steps",
    "eval_examples",
    "evals",
    "traversals.",
    "interpolations.",
    "conditions_grid.",
    "code_maps.",
    "latent_plane.",
    "grace_seconds",
    "guard.",
    "watchdog_seconds",
    "checkpoint.",
    "mesh.",
    "accumulation_steps",
    "data.path",
    "data.max_corrupt_files",
    "data.num_threads",
    "data.prefetch_batches",
)


POSITIVE = (
    "total_steps",
    "log_every_steps",
    "eval_every_steps",
    "checkpoint.every_steps",
    "checkpoint.keep_newest",
    "data.num_threads",
    "data.prefetch_batches",
)
NOT_NEGATIVE = (
    "seed",
    "grace_seconds",
    "watchdog_seconds",
    "eval_examples",
    "data.resize",
    "data.max_corrupt_files",
    "checkpoint.keep_best",
    "checkpoint.keep_every_steps",
)


def check(config: Any) -> None:
    """Checks the fields that belong to no module of their own.

    Raises:
        InputError: a value that can't work.
    """
    flat = flatten(config)
    for field in POSITIVE:
        if (value := flat[field]) < 1:
            raise errors.InputError(f"config.{field}={value} must be at least 1")
    for field in NOT_NEGATIVE:
        if (value := flat[field]) < 0:
            raise errors.InputError(f"config.{field}={value} must not be negative")
    named.check(config.checkpoint.best_mode, ("min", "max"), field="checkpoint.best_mode")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"model.name": …} with the types that JSON knows (tuples become lists)."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def hyperparameters(config: Any) -> dict[str, bool | float | str]:
    """Returns the fields that decide what a run learns, flat; a list is a text."""
    return {
        field: value if isinstance(value, bool | int | float) else str(value)
        for field, value in flatten(config).items()
        if field == "total_steps" or not field.startswith(MAY_CHANGE)
    }


def differences(saved: dict[str, Any], config: Any) -> list[str]:
    """Returns a text for every field that differs and may not."""
    flat = flatten(config)
    missing = object()
    return [
        f"config.{field} is {flat.get(field)!r}, was {saved.get(field)!r}"
        for field in sorted(saved.keys() | flat.keys())
        if saved.get(field, missing) != flat.get(field, missing)
        and not field.startswith(MAY_CHANGE)
    ]


def check_against_run(config: Any, workdir: Path) -> bool:
    """Says whether `workdir` holds a run of this config, which would then be resumed.

    Raises:
        InputError: it holds a run of another config, or files that are no run of ours.
    """
    path = workdir / "config.json"
    if path.exists():
        saved = _read(path)
        if differing := differences(saved, config):
            raise errors.InputError(
                f"--workdir={workdir} holds another run: {'; '.join(differing)}. Use its values, "
                "or a new --workdir"
            )
        return True
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise errors.InputError(
            f"--workdir={workdir} exists and holds no run (config.json is missing): choose a new "
            "or an empty folder"
        )
    return False


def load(workdir: Path) -> ConfigDict:
    """Returns the config that `save` wrote, locked.

    Raises:
        InputError: the folder holds no run, or its config.json is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise errors.InputError(f"--workdir={workdir} holds no run: there is no config.json in it")
    nested: dict[str, Any] = {}
    for field, value in _read(path).items():
        *sections, name = field.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = tuple(value) if isinstance(value, list) else value
    return ConfigDict(nested).lock()


def save(config: Any, workdir: Path) -> None:
    """Writes `config.json`, atomically; a resumed run's newest values replace the older."""
    temporary = workdir / ".config.json.tmp"
    with errors.writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(flatten(config), indent=2, sort_keys=True) + "\n")
        os.replace(temporary, workdir / "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_text())
        if not isinstance(saved, dict):
            raise ValueError("no table of fields")
    except ValueError as error:
        raise errors.InputError(f"{path} is damaged ({error}): choose another --workdir") from None
    return saved
