"""The command line: a config file with overrides, a folder, and where the processes are."""

import difflib
import itertools
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from pipeline.runtime import errors, run_config


class Options(NamedTuple):
    """What was asked for; `config` is locked."""

    config: Any
    workdir: Path
    dry_run: bool
    profile: bool
    distributed: str
    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: an unknown flag or config field, or a value of the wrong type.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Check, compile, and leave.", flag_values=values)
    flags.DEFINE_bool("profile", False, "Trace a few steps, for TensorBoard.", flag_values=values)
    define_processes(values)
    section = parse_config(arguments, values, command="pipeline.train")
    if values.workdir is None:
        raise errors.InputError(
            "--config and --workdir are needed: python -m pipeline.train "
            "--config=configs/beta_vae.py --workdir=runs/beta_vae"
        )
    if "://" in values.workdir:
        raise errors.InputError(
            f"--workdir={values.workdir} must be a folder of a (shared) file system"
        )
    return Options(
        config=section,
        workdir=Path(values.workdir).expanduser().absolute(),
        dry_run=values.dry_run,
        profile=values.profile,
        distributed=values.distributed,
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
    )


def parse_config(arguments: Sequence[str], values: flags.FlagValues, *, command: str) -> Any:
    """Parses the flags defined in `values`, and --config with its overrides, which it returns.

    Raises:
        InputError: an unknown flag or config field, or a value of the wrong type.
    """
    _check_fields(arguments)
    config = config_flags.DEFINE_config_file(
        "config", help_string="File, and presets: configs/beta_vae.py:mnist", flag_values=values
    )
    try:
        rest = values(list(arguments))
        section = config.value
    except (flags.Error, TypeError, ValueError) as error:
        raise errors.InputError(_one_line(str(error))) from None
    if section is None:
        workdir = "--config and --workdir are" if "workdir" in values else "--config is"
        example = " --workdir=runs/beta_vae" if "workdir" in values else ""
        raise errors.InputError(
            f"{workdir} needed: python -m {command} --config=configs/beta_vae.py{example}"
        )
    if len(rest) > 1:
        raise errors.InputError(f"argument {rest[1]!r} is not a flag: write --config.field=value")
    return section


def define_processes(values: flags.FlagValues) -> None:
    """Defines the flags that tell a command where its processes are: `cluster.initialize`'s."""
    flags.DEFINE_enum(
        "distributed", "auto", ["auto", "off"], "auto: join a cluster if any.", flag_values=values
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Number of processes.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "This process, from 0.", flag_values=values)


def _check_fields(arguments: Sequence[str]) -> None:
    """Loads the config file apart from the flags, whose errors for these mistakes are long."""
    given = {}
    for text, following in itertools.pairwise([*arguments[1:], ""]):
        name, equals, value = text.lstrip("-").partition("=")
        given[name] = value if equals else following  # --config FILE is --config=FILE
    if not given.get("config"):
        return
    path, _, presets = given["config"].partition(":")
    if not Path(path).is_file():
        raise errors.InputError(f"--config={path}: there is no such file; see configs/")
    known = list(run_config.flatten(runpy.run_path(path)["get_config"](presets)))
    for name in given:
        if name.startswith("config."):
            check_field(name.removeprefix("config."), known)


def check_field(field: str, known: Sequence[str]) -> None:
    """Raises an InputError, with names that are close, where the config has no such field."""
    if field not in known:
        close = difflib.get_close_matches(field, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see configs/default.py"
        raise errors.InputError(f"--config.{field}: the config has no such field; {hint}")


def _one_line(message: str) -> str:
    return " ".join(message.split())
