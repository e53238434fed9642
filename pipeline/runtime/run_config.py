"""A run's config: checked before anything is built, saved with the run, compared on resuming."""

import ast
import os
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import default
from pipeline.runtime import errors, ranges, registry
from pipeline.runtime.workdir import contents, saved_config

# The fields that may change when a run is resumed: its length, what is shown and kept, and where it
# runs. An evaluation's own section, which has the evaluation's name, may also change.
MAY_CHANGE = (
    "total_steps",
    "log_every_steps",
    "look_every_steps",
    "steps_per_dispatch",
    "eval_every_steps",
    "eval_examples",
    "eval_batch_size",
    "evals",
    "compilation_cache",
    "grace_seconds",
    "guard.",
    "watchdog_seconds",
    "checkpoint.",
    "mesh.",
    "accumulation_steps",
    "data.path",
    "data.accept_changes",
    "data.max_corrupt_files",
    "data.num_threads",
    "data.resident",
    "data.prefetch_batches",
)
DTYPES = ("float32", "bfloat16")


def check(config: Any, *, evaluating: bool = False) -> None:
    """Checks every number, and the fields that no other module checks.

    Args:
        config: of a run.
        evaluating: whether a saved run is evaluated. What only training reads is not checked then.

    Raises:
        InputError: a value that cannot work.
    """
    flat = flatten(config)
    if evaluating:
        flat = {field: flat[field] for field in flat if not field.startswith(ranges.TRAINING)}
    ranges.check(flat)
    if not evaluating and len(set(config.evals)) < len(config.evals):
        raise errors.InputError(
            f"config.evals={tuple(config.evals)} must name each evaluation once: take the others "
            "out"
        )
    modes = ("auto", "min", "max")
    registry.check(config.checkpoint.best_mode, modes, field="checkpoint.best_mode")


def settled(config: Any, platform: str, workdir: Path | None = None) -> Any:
    """Returns the config with the dtype that `compute_dtype="auto"` stands for.

    Args:
        config: of a run; if it already names a dtype, it is returned unchanged.
        platform: "cpu", or that of an accelerator.
        workdir: where a saved run may lie. A resumed run keeps its dtype, even on another platform.

    Raises:
        InputError: an unknown dtype.
    """
    registry.check(config.compute_dtype, ("auto", *DTYPES), field="compute_dtype")
    if config.compute_dtype != "auto":
        return config
    dtype = "float32" if platform == "cpu" else "bfloat16"
    if workdir is not None and (workdir / "config.json").is_file():
        dtype = saved_config.read(workdir).get("compute_dtype", dtype)
    config = config.copy_and_resolve_references().unlock()
    config.compute_dtype = dtype
    return config.lock()


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"model.name": …} with the types of JSON; tuples become lists."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def hyperparameters(config: Any) -> dict[str, bool | float | str]:
    """Returns the fields that decide what a run learns, flat; a list becomes a text."""
    may_change = _may_change(config)
    return {
        field: value if isinstance(value, bool | int | float) else str(value)
        for field, value in flatten(config).items()
        if field == "total_steps" or not field.startswith(may_change)
    }


def differences(saved: dict[str, Any], config: Any) -> list[str]:
    """Returns a text for every field that differs although it must not change on resuming."""
    flat = flatten(config)
    missing, may_change = object(), _may_change(config)
    return [
        f"config.{field} is {flat.get(field)!r}, was {saved.get(field)!r}"
        for field in sorted(saved.keys() | flat.keys())
        if saved.get(field, missing) != flat.get(field, missing)
        and not field.startswith(may_change)
    ]


def _may_change(config: Any) -> tuple[str, ...]:
    """Returns the prefixes of the fields that may change on resuming."""
    # The section of an evaluation from outside, my_package.my_evaluation, has the last part's name.
    evaluations = {*registry.names("evals"), *(name.rpartition(".")[2] for name in config.evals)}
    return (*MAY_CHANGE, *(f"{name}." for name in sorted(evaluations)))


def changed(config: Any, changes: str) -> ConfigDict:
    """Returns a copy of the config with other values.

    Args:
        config: of a run.
        changes: FIELD=VALUE pairs, separated by commas.

    Raises:
        InputError: a field that does not exist, or a value of another type.
    """
    flat = flatten(config)
    for change in re.split(r",(?=[a-z_.0-9]+=)", changes):
        field, _, text = change.strip().partition("=")
        registry.check(field, flat, field="field")
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            value = text
        if type(value) is not type(flat[field]) and not (
            isinstance(value, int | tuple) and isinstance(flat[field], float | list)
        ):
            raise errors.InputError(
                f"config.{field}={text} must be like its present value, {flat[field]!r}"
            )
        flat[field] = value
    return _unflatten(flat)


def check_against_run(config: Any, workdir: Path) -> bool:
    """Says whether `workdir` holds a run of this config, which would then be resumed.

    Raises:
        InputError: it holds a run of another config, a run that lost its checkpoints, or files that
            do not belong to a run.
    """
    if os.path.lexists(workdir) and not workdir.is_dir():
        raise errors.InputError(f"--workdir={workdir} must be a folder, or a name that is free")
    if not workdir.exists() or contents.is_empty(workdir):
        return False
    if not saved_config.exists(workdir):
        if contents.committed(workdir):
            raise errors.InputError(
                f"--workdir={workdir} holds checkpoints and no config.json: train one step with "
                "that run's settings in a new --workdir (--config.total_steps=1), and copy its "
                "config.json here"
            )
        raise errors.InputError(
            f"--workdir={workdir} exists and holds no run (config.json is missing): choose a new "
            "or an empty folder"
        )
    if differing := differences(saved_config.read(workdir), config):
        raise errors.InputError(
            f"--workdir={workdir} holds another run: {'; '.join(differing)}. Use its values, "
            "or a new --workdir"
        )
    contents.check_checkpoints(workdir)
    return True


def load(workdir: Path) -> ConfigDict:
    """Returns the config that `save` wrote, locked; fields missing in an older one get defaults.

    Raises:
        InputError: the folder holds no run, or its config.json is damaged.
    """
    if not saved_config.exists(workdir):
        raise errors.InputError(f"--workdir={workdir} holds no run: there is no config.json in it")
    return _unflatten(flatten(default.get_config()) | saved_config.read(workdir))


def save(config: Any, workdir: Path) -> None:
    """Writes `config.json` atomically; on resuming the new values replace the old ones."""
    saved_config.write(workdir, flatten(config))


def _unflatten(flat: dict[str, Any]) -> ConfigDict:
    nested: dict[str, Any] = {}
    for field, value in flat.items():
        *sections, name = field.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = tuple(value) if isinstance(value, list) else value
    return ConfigDict(nested).lock()
