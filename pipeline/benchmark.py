"""The command that measures: python -m pipeline.benchmark --config=configs/beta_vae.py.

What a step of that config costs here, against what the machine can do, and what the loop adds to
it: data, saves, digests, flags. `--against=FIELD=VALUE` times the same step with other fields in
turn with it. Nothing is kept. Exit codes: 0; 2 a mistake in the input; 130 after Ctrl-C; 1 a fault.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from pipeline import distributed, errors, memory

SECTIONS = ("machine", "compilation", "step", "input", "safety", "loop", "against")


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv`; returns `bench.Options`.

    Raises:
        InputError: an unknown flag or config field, or a value that can't work.
    """
    from pipeline import bench, flags

    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("against", "", "FIELD=VALUE[,…] of a second step.", flag_values=values)
    absl_flags.DEFINE_integer("rounds", 7, "In which all is timed.", flag_values=values)
    absl_flags.DEFINE_integer(
        "loop_steps", 0, "Steps a round of the loop; 0: five seconds'.", flag_values=values
    )
    absl_flags.DEFINE_string("json", None, "File for the figures.", flag_values=values)
    config = flags.parse_config(arguments, values, command="pipeline.benchmark")
    for name, least in (("rounds", 1), ("loop_steps", 0)):
        if int(values[name].value or 0) < least:
            raise errors.InputError(f"--{name}={values[name].value} must be at least {least}")
    return bench.Options(
        config=config,
        against=values.against,
        rounds=values.rounds,
        loop_steps=values.loop_steps,
        json=Path(values.json).expanduser().absolute() if values.json else None,
    )


def run(options: Any) -> dict[str, dict[str, Any]]:
    """Measures section by section, shows each as a table, and returns all figures.

    Raises:
        InputError: something in the config can't work.
    """
    from pipeline import bench, named, terminal

    screen = terminal.Terminal()
    ready = bench.prepare(options)
    sections = {}
    for name in SECTIONS:
        figures = named.load("benchmarks", name, field="section").measure(ready)
        if figures:
            sections[name] = figures
            screen.table(name, {what: _shown(figure) for what, figure in figures.items()})
    return sections


def _shown(figure: Any) -> Any:
    return str(figure) if isinstance(figure, tuple) else figure


def main() -> int:
    """Reads the flags, measures, and writes the figures where --json says."""
    memory.keep_freed()
    try:
        options = parse(sys.argv)
        sections = run(options)
        if options.json:
            with errors.writing(options.json.parent):
                options.json.write_text(json.dumps(sections, indent=2) + "\n")
            print(options.json)
    except errors.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return distributed.INTERRUPTED
    except OSError as error:
        print(f"error: {errors.reason(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}".split("\n")[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
