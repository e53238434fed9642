"""The command that measures: python -m pipeline.benchmark --config=configs/beta_vae.py.

It measures what a step of that config costs here, compares it with what the machine can do, and
measures what the loop adds: data, saves, digests, flags. `--against=FIELD=VALUE` also times the
step with other fields; the two alternate. `--profile=DIR` keeps a trace of bare steps for
TensorBoard. The command writes nothing else but the figures that `--json` asks for.

Exit codes: 0 complete; 2 a mistake in the input; 130 after Ctrl-C; 1 a fault.
"""

import sys
from collections.abc import Sequence
from typing import Any

from pipeline.performance import figures_file
from pipeline.runtime import (
    allocator,
    command_line,
    errors,
    exit_codes,
    flags,
    output,
)

SECTIONS = (
    "machine",
    "compilation",
    "step",
    "sampling",
    "input",
    "safety",
    "logging",
    "host",
    "loop",
    "against",
)
COMMAND = command_line.Command(
    "pipeline.benchmark",
    "Measures what a step of a config costs on this machine, and what the loop adds to it.",
    (
        *flags.CONFIG,
        flags.Flag("against", "FIELD=VALUE[,…]", "also times the step with other fields", ""),
        flags.integer("rounds", "rounds, in each of which everything is timed", 7, least=1),
        flags.integer(
            "loop_steps",
            "steps in a round of the loop; 0: five seconds of them",
            0,
            least=0,
        ),
        flags.JSON,
        flags.Flag("profile", "DIR", "keeps a trace of bare steps there, for TensorBoard"),
    ),
    (
        "--config=configs/beta_vae.py",
        "--config=configs/vq_vae.py --against=batch_size=64",
    ),
    instead="--config.field=value",
)


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv` and returns `bench.Options`.

    Raises:
        InputError: an unknown flag or config field, or a value that cannot work.
    """
    values = COMMAND.parse(arguments)
    if (num := values.config.replicas) > 1:
        raise errors.InputError(
            f"config.replicas={num}: a benchmark is of a single run; --against=replicas={num} "
            "times the step of several beside it"
        )
    # A timed loop does not evaluate, so these end its launches.
    stops = values.config.log_every_steps, values.config.checkpoint.every_steps
    together = min(values.config.steps_per_dispatch, *stops)
    if 0 < values.loop_steps < 2 * together:
        raise errors.InputError(
            f"--loop_steps={values.loop_steps} must be at least {2 * together}, or 0 for as many "
            f"as take five seconds: steps are launched {together} at once, and the first launch "
            "compiles"
        )
    from pipeline.performance import bench

    return bench.Options(
        config=values.config,
        against=values.against,
        rounds=values.rounds,
        loop_steps=values.loop_steps,
        json=flags.path_or_none(values.json),
        profile=flags.path_or_none(values.profile),
    )


def run(options: Any) -> dict[str, dict[str, Any]]:
    """Measures section by section, shows each one as a table, and returns all figures.

    Raises:
        InputError: something in the config cannot work.
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
    """Reads the flags, measures, writes the file that --json names, and returns the exit code."""
    return exit_codes.of(_command)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    sections = run(options)
    if options.json:
        figures_file.write(options.json, sections)
        print(options.json)
    else:
        output.check_kept("--json=FILE writes the figures to a file")


if __name__ == "__main__":
    exit_codes.leave(main())
