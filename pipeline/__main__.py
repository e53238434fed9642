"""The commands by name: `python -m pipeline` lists them, `vae-pipeline train …` runs one.

A command is a module in this folder that defines `COMMAND`. None of them imports JAX when it is
loaded, so the list appears at once.
"""

import difflib
import importlib
import pkgutil
import sys
from pathlib import Path

import pipeline
from pipeline.runtime import command_line, errors, exit_codes, output


def names() -> tuple[str, ...]:
    """Returns the names of the commands."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(one.name for one in found if not one.ispkg and not one.name.startswith("_"))


def listing() -> str:
    """Returns one line per command, and how to read a command's help."""
    width = max(map(len, names()))
    lines = [
        f"  {name:{width}}  {importlib.import_module(f'pipeline.{name}').COMMAND.does}"
        for name in names()
    ]
    return "\n".join([
        "Trains variational autoencoders in JAX, on one machine or many.",
        "",
        *lines,
        "",
        "A command's flags and examples: vae-pipeline train --help",
        "Without the installed script: python -m pipeline.train --help",
    ])  # fmt: skip


def main() -> int:
    """Lists the commands, or runs the one that `sys.argv` names and then ends the process."""
    output.outlast("command")
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in command_line.HELP:
        print(listing(), flush=True)
        return exit_codes.COMPLETE
    if name == "--version":
        print(f"vae-pipeline {pipeline.__version__}")
        return exit_codes.COMPLETE
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names())}"
        errors.say(f"error: {name!r} is no command; {hint}")
        return exit_codes.MISTAKE
    sys.argv = [f"vae-pipeline {name}", *arguments]
    exit_codes.leave(importlib.import_module(f"pipeline.{name}").main())
    raise AssertionError("the process has ended")


if __name__ == "__main__":
    sys.exit(main())
