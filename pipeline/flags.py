"""The command line: a config file with overrides, a folder, and where the processes are."""

import difflib
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from pipeline import errors, run_config


class Options(NamedTuple):
    """What was asked for; `config` is locked."""

    config: Any
    workdir: Path
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
    config = config_flags.DEFINE_config_file(
        "config", help_string="File, and presets: configs/beta_vae.py:mnist", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_enum(
        "distributed", "auto", ["auto", "off"], "auto: join a cluster if any.", flag_values=values
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Number of processes.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "This process, from 0.", flag_values=values)
    try:
        rest = values(list(arguments))
        section = config.value
    except errors.InputError:
        raise
    except (AttributeError, KeyError) as error:
        raise errors.InputError(_unknown_field(str(error), arguments)) from None
    except (flags.Error, ImportError, OSError, TypeError, ValueError) as error:
        raise errors.InputError(_one_line(str(error))) from None
    if section is None or values.workdir is None:
        raise errors.InputError(
            "--config and --workdir are needed: python -m pipeline.train "
            "--config=configs/beta_vae.py --workdir=runs/beta_vae"
        )
    if len(rest) > 1:
        raise errors.InputError(f"argument {rest[1]!r} is not a flag: write --config.field=value")
    if "://" in values.workdir:
        raise errors.InputError(
            f"--workdir={values.workdir} must be a folder of a (shared) file system"
        )
    return Options(
        config=section,
        workdir=Path(values.workdir).expanduser().absolute(),
        distributed=values.distributed,
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
    )


def _unknown_field(message: str, arguments: Sequence[str]) -> str:
    """Names the misspelt field, and those of the config that come close."""
    given = [
        match[1] for argument in arguments if (match := re.match(r"--?config\.([\w.]+)", argument))
    ]
    known = _known_fields(arguments)
    for field in given:
        if field not in known:
            close = difflib.get_close_matches(field, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see configs/default.py"
            return f"--config.{field}: the config has no such field; {hint}"
    return _one_line(message)


def _known_fields(arguments: Sequence[str]) -> list[str]:
    # Read apart from the flags, which apply every override as soon as they load the file.
    given = next(text for text in arguments if re.match(r"--?config=", text)).partition("=")[2]
    path, _, presets = given.partition(":")
    return list(run_config.flatten(runpy.run_path(path)["get_config"](presets)))


def _one_line(message: str) -> str:
    return " ".join(message.split())
