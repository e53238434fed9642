"""The command that times a step's loops beside the plain step; `--help` lists its flags.

A loop runs over parts of the batch (`accumulation_steps`, `deterministic_shards`) or over steps
(`steps_per_dispatch`). The works are those of `frameworks.works`, and all forms of a work run in
turn. Exit codes are those of `pipeline.benchmark`.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.display import terminal
from pipeline.performance import figures_file
from pipeline.performance.frameworks import works
from pipeline.runtime import allocator, command_line, exit_codes, flags

NAMES = ("conv_beta_vae", "tutorial_vq_vae", "sonnet_vq_vae", "dense_conditional_vae")
COMMAND = command_line.Command(
    "pipeline.performance.loops",
    "Times steps with loops in turn with the plain step.",
    (
        flags.Flag("work", "NAME[,…]", "what is timed", list(NAMES), "list", shown="four of them"),
        flags.integer("rounds", "rounds, in each of which every form runs once", 9, least=1),
        flags.JSON,
    ),
    ("--work=conv_beta_vae", "--rounds=15"),
    instead="--work=NAME",
)


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv`.

    Raises:
        InputError: a flag or a work is unknown, or a number is out of its range.
    """
    values = COMMAND.parse(arguments)
    for name in values.work:
        works.check(name)
    return values


def table(figures: dict[str, dict[str, dict[str, Any]]]) -> list[list[str]]:
    """Returns a header, and one row for each form of each work."""
    rows = [
        [
            "work",
            "form",
            "ms a step",
            "over a plain step",
            "by memory traffic",
            "compiled in",
            "temporaries",
        ]
    ]
    for work, forms in figures.items():
        for name, found in forms.items():
            rows.append(
                [
                    work,
                    name,
                    f"{found['ms']:.2f}",
                    str(found["ratio"]) if found["ratio"].low != found["ratio"].high else "–",
                    f"{found['bound']:.2f}" if found["bound"] > 1 else "–",
                    f"{found['compile_s']:.1f} s",
                    f"{found['temporaries_mib']:.1f} MiB",
                ]
            )
    return rows


def main() -> int:
    """Reads the flags, measures, and writes the figures to the file that --json names."""
    return exit_codes.of(_command)


def _command() -> None:
    values, screen = parse(sys.argv), terminal.Terminal()
    # Shards need a fixed number of threads; all forms then have the same.
    os.environ.setdefault("NPROC", str(len(os.sched_getaffinity(0))))
    allocator.keep_freed()
    from pipeline.performance import looped_steps  # imports JAX, which needs NPROC

    figures = {work: looped_steps.compare(work, values.rounds) for work in values.work}
    screen.columns("Steps with loops: median and quartiles", table(figures))
    if file := flags.path_or_none(values.json):
        figures_file.write(file, figures)
        screen.note(str(file))


if __name__ == "__main__":
    exit_codes.leave(main())
