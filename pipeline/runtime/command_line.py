"""The command line: a command declares its flags, and its parser and its help follow from them."""

import difflib
import itertools
import runpy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime import errors, flags

HELP = ("-h", "-help", "--help", "-helpshort", "--helpshort", "--helpfull")


class Command(NamedTuple):
    """A command: its module, its flags, and the texts of its help."""

    module: str  # for `python -m`
    does: str  # one line
    takes: tuple[flags.Flag, ...]
    examples: tuple[str, ...]  # arguments that work
    instead: str = ""  # what the error suggests for an argument that is not a flag
    arguments: str = ""  # the arguments that may follow the flags; "": none may
    codes: str = "0 complete, 2 a mistake in the input, 130 after Ctrl-C, 1 a fault"

    def parse(self, arguments: Sequence[str]) -> Any:
        """Parses `sys.argv` and returns absl's values; `config` is the locked config.

        Raises:
            SystemExit: after the help was shown.
            InputError: an unknown flag or config field, a value that cannot work, or a missing
                flag.
        """
        values, rest = self.read(arguments)
        if "config" in values and values.config is None:
            raise self._needed()
        if rest:
            raise errors.InputError(f"argument {rest[0]!r} is not a flag: write {self.instead}")
        self.check(values)
        return values

    def read(self, arguments: Sequence[str]) -> tuple[Any, list[str]]:
        """Parses `sys.argv`; returns absl's values, and the arguments that are not flags.

        Raises:
            SystemExit: after the help was shown.
            InputError: an unknown flag or config field, or a value of the wrong type.
        """
        self.answer(arguments)
        from absl import flags as absl_flags

        if any(flag.kind == "config" for flag in self.takes):
            _check_fields(arguments)
        values = absl_flags.FlagValues()
        values.set_gnu_getopt(bool(self.arguments))  # flags may follow the arguments
        for flag in self.takes:
            flags.define(flag, values, arguments)
        try:
            rest = values(list(arguments))[1:]
            if "config" in values:
                values["config"].value  # noqa: B018 (loads the file)
        except (absl_flags.Error, TypeError, ValueError) as error:
            raise errors.InputError(" ".join(str(error).split())) from None
        return values, rest

    def answer(self, arguments: Sequence[str]) -> None:
        """Shows the help and leaves, if the arguments ask for it."""
        if any(text in HELP for text in itertools.takewhile(lambda a: a != "--", arguments[1:])):
            print(self.help(), flush=True)
            raise SystemExit(0)

    def check(self, values: Any) -> None:
        """Raises an InputError if a needed flag is missing or a number is too small."""
        if any(flag.example and values[flag.name].value is None for flag in self.takes):
            raise self._needed()
        for flag in self.takes:
            if flag.least is not None and values[flag.name].value is not None:
                errors.check_range(f"--{flag.name}", values[flag.name].value, flag.least)

    def help(self) -> str:
        """Returns what `--help` prints, at most 24 lines of 100 columns."""
        needed = [f"--{flag.name}={flag.value}" for flag in self.takes if flags.is_needed(flag)]
        usage = " ".join([f"python -m {self.module}", *needed, "[--FLAG=VALUE …]", self.arguments])
        names = [f"--{f.name}={f.value}" if f.value else f"--{f.name}" for f in self.takes]
        width = max(map(len, names), default=0)
        return "\n".join([
            self.does,
            "",
            f"usage: {usage.rstrip()}",
            "",
            *(f"  {name:{width}}  {flag.text} {flags.shown_default(flag)}"
              for name, flag in zip(names, self.takes, strict=True)),
            "",
            *(f"example: python -m {self.module} {text}".rstrip() for text in self.examples),
            "",
            f"exit codes: {self.codes}",
        ])  # fmt: skip

    def _needed(self) -> errors.InputError:
        needed = [flag for flag in self.takes if flag.example]
        names = " and ".join(f"--{flag.name}" for flag in needed)
        given = " ".join(f"--{flag.name}={flag.example}" for flag in needed)
        verb = "are" if len(needed) > 1 else "is"
        return errors.InputError(f"{names} {verb} needed: python -m {self.module} {given}")


def _check_fields(arguments: Sequence[str]) -> None:
    """Checks the config file and its overrides before absl does, whose errors are long."""
    from pipeline.runtime import run_config

    given = dict(assigned(arguments[1:]))
    if not given.get("config"):
        return
    path, _, presets = given["config"].partition(":")
    if not Path(path).is_file():
        raise errors.InputError(f"--config={path}: there is no such file; see configs/")
    known = list(run_config.flatten(runpy.run_path(path)["get_config"](presets)))
    for name in given:
        if name.startswith("config."):
            check_field(name.removeprefix("config."), known)


def assigned(arguments: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Yields (name, value) of each argument that may be a flag.

    `--config FILE` means the same as `--config=FILE`.
    """
    for text, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = text.lstrip("-").partition("=")
        yield name, value if equals else following


def overridden(config: Any, overrides: Sequence[str]) -> Any:
    """Applies overrides `--config.FIELD=VALUE` to the config in place, and returns it.

    Raises:
        InputError: an unknown field, or a value that is missing or of the wrong type.
    """
    from absl import flags as absl_flags
    from ml_collections import config_flags

    from pipeline.runtime import run_config

    known = list(run_config.flatten(config))
    for text in overrides:
        name, equals, _ = text.lstrip("-").partition("=")
        check_field(name.removeprefix("config."), known)
        if not equals:
            raise errors.InputError(f"argument {text!r} has no value: write {text}=value")
    values, arguments = absl_flags.FlagValues(), ["command", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except (absl_flags.Error, TypeError, ValueError) as error:
        raise errors.InputError(" ".join(str(error).split())) from None
    return config


def check_field(field: str, known: Sequence[str]) -> None:
    """Raises an InputError that suggests similar names if the config has no such field."""
    if field not in known:
        close = difflib.get_close_matches(field, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see configs/default.py"
        raise errors.InputError(f"--config.{field}: the config has no such field; {hint}")
