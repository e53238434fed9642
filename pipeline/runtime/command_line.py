"""The command line: a command declares its flags, and its parser and its help follow from them."""

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pipeline.runtime import config_file, errors, flags
from pipeline.runtime.storage import faults

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
    groups: tuple[flags.Group, ...] = ()  # of further flags, which the help shows in one line each

    @property
    def every(self) -> tuple[flags.Flag, ...]:
        """All flags, also those of the groups."""
        return (*self.takes, *(flag for group in self.groups for flag in group.flags))

    def parse(self, arguments: Sequence[str]) -> Any:
        """Parses `sys.argv` and returns absl's values; `config` is the locked config.

        Raises:
            SystemExit: after the help was shown.
            InputError: an unknown flag or config field, a value that cannot work, or a missing
                flag.
        """
        values, rest = self.read(arguments)
        if rest:
            raise errors.InputError(f"argument {rest[0]!r} is not a flag: write {self._flag(rest)}")
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

        for text in arguments[1:]:
            errors.check_text("argument", text)
        arguments, config = list(arguments), None
        if any(flag.kind == "config" for flag in self.every):
            arguments, config = config_file.read(arguments)
        self._check_names(arguments)
        values = absl_flags.FlagValues()
        values.set_gnu_getopt(bool(self.arguments))  # flags may follow the arguments
        for flag in self.every:
            flags.define(flag, values, arguments, config)
        try:
            rest = values(arguments)[1:]
        except Exception as error:  # absl's own, and any that reading a value raises
            raise errors.InputError(" ".join(str(error).split())) from None
        self._check_places(values)
        return values, rest

    def answer(self, arguments: Sequence[str]) -> None:
        """Shows the help and leaves, if the arguments ask for it."""
        if any(text in HELP for text in itertools.takewhile(lambda a: a != "--", arguments[1:])):
            print(self.help(), flush=True)
            raise SystemExit(0)

    def check(self, values: Any) -> None:
        """Raises an InputError if a needed flag is missing or a number is too small."""
        missing = [f for f in self.every if f.example and values[f.name].value in (None, "")]
        if missing:
            raise self._needed(missing)
        for flag in self.every:
            if flag.least is not None and values[flag.name].value is not None:
                errors.check_range(f"--{flag.name}", values[flag.name].value, flag.least)

    def _check_places(self, values: Any) -> None:
        """Checks where files shall be written, before anything slow begins; writes nothing.

        Raises:
            InputError: --json names a folder, or --out a file.
            OSError: the folder of --json cannot be made or written.
        """
        names = {flag.name for flag in self.every}
        if "json" in names and (given := values["json"].value):
            file = flags.path(given, name="--json")
            if os.path.isdir(file):
                raise errors.InputError(f"--json={given} is a folder: name a file in it")
            faults.check_writable(file.parent)
        given = values["out"].value if "out" in names else None
        if given and "://" not in given and os.path.isfile(flags.path(given, name="--out")):
            raise errors.InputError(f"--out={given} is a file: name a folder")

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
            *(f"  {' '.join(f'--{flag.name}={flag.value}' for flag in group.flags)}"
              f"  {group.text} (default: {group.shown})" for group in self.groups),
            "",
            *(f"example: python -m {self.module} {text}".rstrip() for text in self.examples),
            "",
            f"exit codes: {self.codes}",
        ])  # fmt: skip

    def _needed(self, missing: Sequence[flags.Flag]) -> errors.InputError:
        names = " and ".join(f"--{flag.name}" for flag in missing)
        given = " ".join(f"--{flag.name}={flag.example}" for flag in self.takes if flag.example)
        verb = "are" if len(missing) > 1 else "is"
        return errors.InputError(f"{names} {verb} needed: python -m {self.module} {given}")

    def _flag(self, rest: Sequence[str]) -> str:
        """Returns what the user may have meant by arguments that are not flags."""
        takes_run = any(flag.name == "workdir" for flag in self.every)
        is_run = len(rest) == 1 and ("/" in rest[0] or os.path.isdir(rest[0]))
        return f"--workdir={rest[0]}" if takes_run and is_run else self.instead

    def _check_names(self, arguments: Sequence[str]) -> None:
        """Raises an InputError that names the config's field of this name for an unknown flag."""
        takes_fields = any(flag.kind == "field" for flag in self.every)
        for text in itertools.takewhile(lambda a: a != "--", arguments[1:]):
            name = text.lstrip("-").partition("=")[0]
            if (
                not text.startswith("--")
                or not takes_fields
                or any(name == f.name for f in self.every)
            ):
                continue
            if fields := config_file.fields_like(name):
                raise errors.InputError(
                    f"{text.partition('=')[0]} is no flag: did you mean "
                    f"{' or '.join(f'--config.{field}' for field in fields)}?"
                )


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

    arguments = ["command", *config_file.expanded(overrides, config)]
    for text in arguments[1:]:
        if "=" not in text:
            raise errors.InputError(f"argument {text!r} has no value: write {text}=value")
    values = absl_flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except Exception as error:  # absl's own, and any that reading a value raises
        raise errors.InputError(" ".join(str(error).split())) from None
    return config
