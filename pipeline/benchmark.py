"""The command that measures: python -m pipeline.benchmark --config=configs/beta_vae.py.

What a step of that config costs here, against what the machine can do, and what the loop adds to
it: data, saves, digests, flags. `--against=FIELD=VALUE` times the same step with other fields in
turn with it; `--profile=DIR` keeps a trace of bare steps for TensorBoard, and nothing else is kept.
Exit codes: 0; 2 a mistake in the input; 130 after Ctrl-C; 1 a fault.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from pipeline.runtime import allocator, errors, exit_codes

SECTIONS = ("machine", "compilation", "step", "input", "safety", "logging", "loop", "against")


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv`; returns `bench.Options`.

    Raises:
        InputError: an unknown flag or config field, or a value that can't work.
    """
    from pipeline.performance import bench
    from pipeline.runtime import command_line

    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("against", "", "FIELD=VALUE[,…] of a second step.", flag_values=values)
    absl_flags.DEFINE_integer("rounds", 7, "In which all is timed.", flag_values=values)
    absl_flags.DEFINE_integer(
        "loop_steps", 0, "Steps a round of the loop; 0: five seconds'.", flag_values=values
    )
    absl_flags.DEFINE_string("json", None, "File for the figures.", flag_values=values)
    absl_flags.DEFINE_string("profile", None, "Folder for a trace.", flag_values=values)
    config = command_line.parse_config(arguments, values, command="pipeline.benchmark")
    for name, least in (("rounds", 1), ("loop_steps", 0)):
        if int(values[name].value or 0) < least:
            raise errors.InputError(f"--{name}={values[name].value} must be at least {least}")
    return bench.Options(
        config=config,
        against=values.against,
        rounds=values.rounds,
        loop_steps=values.loop_steps,
        json=Path(values.json).expanduser().absolute() if values.json else None,
        profile=Path(values.profile).expanduser().absolute() if values.profile else None,
    )


def run(options: Any) -> dict[str, dict[str, Any]]:
    """Measures section by section, shows each as a table, and returns all figures.

    Raises:
        InputError: something in the config can't work.
    """
    from pipeline.display import terminal
    from pipeline.performance import bench
    from pipeline.runtime import registry

    screen = terminal.Terminal()
    ready = bench.prepare(options)
    sections = {}
    for name in SECTIONS:
        figures = registry.load("performance.sections", name, field="section").measure(ready)
        if figures:
            sections[name] = figures
            screen.table(name, {what: _shown(figure) for what, figure in figures.items()})
    return sections


def _shown(figure: Any) -> Any:
    return str(figure) if isinstance(figure, tuple) else figure


def main() -> int:
    """Reads the flags, measures, and writes the figures where --json says."""
    return exit_codes.of(_command)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    sections = run(options)
    if options.json:
        with errors.writing(options.json.parent):
            options.json.write_text(json.dumps(sections, indent=2) + "\n")
        print(options.json)


if __name__ == "__main__":
    exit_codes.leave(main())
