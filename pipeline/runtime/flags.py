"""Flags as a command declares them, and the flags that several commands share.

absl parses them, because ml_collections needs it for `--config` and its overrides. It is imported
only when flags are read, so that `--help` answers at once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime import errors
from pipeline.runtime.storage import faults, places


class Flag(NamedTuple):
    """A flag: how it is parsed, and how the help shows it."""

    name: str
    value: str  # what the help shows after "="; "" for a switch
    text: str
    default: Any = None
    kind: str = "string"  # absl's, or "config", or "field": an override of the config
    least: int | None = None  # the smallest value of a number
    shown: str = ""  # what the help shows as the default; "": the default itself
    example: str = ""  # a value that works, for a flag that the command needs


class Group(NamedTuple):
    """Flags that the help shows in one line, because they are read together."""

    flags: tuple[Flag, ...]
    text: str
    shown: str  # what the help shows as their default


def switch(name: str, text: str) -> Flag:
    """Returns a flag that is off by default."""
    return Flag(name, "", text, False, "bool", shown="off")


def integer(name: str, text: str, default: int | None = None, *, least: int | None = None) -> Flag:
    """Returns a flag for a whole number of at least `least`."""
    return Flag(name, "N", text, default, "integer", least)


def choice(name: str, values: Sequence[str], text: str) -> Flag:
    """Returns a flag that takes one of the values, the first by default."""
    return Flag(name, "|".join(values), text, values[0], "enum")


def workdir(example: str = "") -> Flag:
    """Returns the flag for the folder of a run; if it has an example, the command needs it."""
    return Flag("workdir", "DIR", "folder of the run, also gs://bucket/name", example=example)


CONFIG = (
    Flag("config", "FILE", "config, with presets after a colon: configs/beta_vae.py:mnist",
         kind="config", example="configs/beta_vae.py"),
    Flag("config.FIELD", "VALUE", "overrides a field; configs/default.py lists them",
         kind="field", shown="the file's"),
)  # fmt: skip
STEP = Flag("step", "STEP", "checkpoint: best, latest or a number", "best")
OUT = Flag("out", "DIR", "folder for the files", shown="RUN/reports/<step>")
JSON = Flag("json", "FILE", "also writes the figures to this file")
PROCESSES = (
    choice(
        "distributed", ("auto", "off"), "auto joins the processes of a cluster, if there is one"
    ),
    Flag("coordinator", "HOST:PORT", "address of process 0, if no cluster sets it"),
    integer("num_processes", "number of processes, with --coordinator"),
    integer("process_id", "number of this process, from 0, with --coordinator"),
    integer("join_seconds", "longest wait for missing processes at the start", 55, least=1),
)


class Processes(NamedTuple):
    """Where the processes of a command are, as `cluster.join` expects it."""

    distributed: str
    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    join_seconds: int


def processes(values: Any) -> Processes:
    """Returns the values of the flags `PROCESSES`."""
    return Processes(*(values[name].value for name in Processes._fields))


def path(text: str, *, name: str = "path", stores: Sequence[str] = ()) -> Any:
    """Returns an absolute path, or one in a bucket of the `stores`; "~" is the home folder.

    Raises:
        InputError: there can be no such path.
    """
    return places.of(text, name=name, stores=tuple(stores))


def run(text: str) -> Any:
    """Returns the folder of a run, which may lie in a bucket.

    Raises:
        InputError: as `path`; or it is a bucket to which checkpoints cannot be written, or which
            refuses to be read.
        OSError: its store cannot be reached.
    """
    if text.startswith("s3://"):
        raise errors.InputError(
            f"--workdir={text}: checkpoints cannot be written to s3://. Mount the bucket, give the "
            "folder as --workdir, and add --config.checkpoint.atomicity=commit_file"
        )
    found = path(text, name="--workdir", stores=("gs",))
    faults.check_readable(found)
    return found


def out_or_none(text: str | None) -> Any:
    """Returns the folder for a command's files, perhaps in a bucket; None if none was given."""
    return path(text, name="--out", stores=tuple(places.STORES)) if text else None


def path_or_none(text: str | None) -> Path | None:
    """Returns an absolute path, or None if none was given."""
    return path(text) if text else None


def is_needed(flag: Flag) -> bool:
    """Says whether the command needs the flag."""
    return bool(flag.example) or flag.shown == "needed"


def shown_default(flag: Flag) -> str:
    """Returns the default as the help shows it."""
    if is_needed(flag):
        return "(needed)"
    shown = flag.shown or ("none" if flag.default in (None, "") else str(flag.default))
    return f"(default: {shown})"


def define(flag: Flag, values: Any, arguments: Sequence[str], config: Any = None) -> None:
    """Defines the flag in absl's `values`; `arguments` may hold overrides of the config."""
    from absl import flags
    from ml_collections import config_flags

    if flag.kind == "config" and config is not None:
        config_flags.DEFINE_config_dict(
            flag.name, config, help_string=flag.text, flag_values=values, sys_argv=list(arguments)
        )
    elif flag.kind == "config":
        flags.DEFINE_string(flag.name, None, flag.text, flag_values=values)
    elif flag.kind == "enum":
        choices = flag.value.split("|")
        flags.DEFINE_enum(flag.name, flag.default, choices, flag.text, flag_values=values)
    elif flag.kind != "field":  # the flag for the config defines these
        defines: dict[str, Callable[..., Any]] = {
            "string": flags.DEFINE_string,
            "bool": flags.DEFINE_bool,
            "integer": flags.DEFINE_integer,
            "float": flags.DEFINE_float,
            "list": flags.DEFINE_list,
        }
        defines[flag.kind](flag.name, flag.default, flag.text, flag_values=values)
