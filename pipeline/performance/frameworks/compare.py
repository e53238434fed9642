"""The command that times the same work in other frameworks; `--help` lists its flags.

Each form of each framework has a process of its own, and the processes run in turn, round by round.
The table has the time of a step there over the time of a step here: above 1, this pipeline is
faster. `--processes` runs them in several processes, see `several`. Exit codes are those of
`pipeline.benchmark`.
"""

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.display import terminal
from pipeline.performance import figures_file, timing
from pipeline.performance.frameworks import forms, several, works
from pipeline.performance.frameworks.groups import Absent, Group
from pipeline.runtime import command_line, errors, exit_codes, flags, processor

BEST = "best of PyTorch and its libraries"
CORES = len(os.sched_getaffinity(0))
PYTORCH = ("pytorch", "pythae", "lucidrains")  # these frameworks run on PyTorch
COMMAND = command_line.Command(
    "pipeline.performance.frameworks.compare",
    "Times the same work in other frameworks, in turn with this pipeline.",
    (
        flags.Flag("work", "NAME[,…]", "what is timed", list(works.WORKS), "list", shown="all"),
        flags.integer("rounds", "rounds, in each of which every form runs once", 9, least=1),
        flags.integer(
            "threads", "threads of every framework, over all its processes", CORES, least=1
        ),
        flags.integer("processes", "processes; several are timed beside DDP, on CPUs", 1, least=1),
        flags.JSON,
    ),
    ("--work=sonnet_vq_vae --rounds=15", "--processes=2"),
    instead="--work=NAME",
)


class Options(NamedTuple):
    """What the command line asks for."""

    works: tuple[str, ...]
    rounds: int
    threads: int
    processes: int
    json: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: a flag or a work is unknown, or a number is out of its range.
    """
    values = COMMAND.parse(arguments)
    for name in values.work:
        works.check(name)
    if values.processes > min(CORES, values.threads):
        raise errors.InputError(
            f"--processes={values.processes} needs a core and a thread for each: this machine "
            f"lends {CORES} cores, --threads={values.threads}; use --processes="
            f"{min(CORES, values.threads)} or fewer"
        )
    file = flags.path_or_none(values.json)
    return Options(tuple(values.work), values.rounds, values.threads, values.processes, file)


def compare(work: str, options: Options, screen: terminal.Terminal) -> dict[str, Any]:
    """Measures one work in every form that runs here.

    Returns:
        {form: {`ms` a step, `ratio` of its time to ours, `version`}}; BEST has the figures of the
        fastest form that runs on PyTorch.

    Raises:
        RuntimeError: our own form does not run.
    """
    with contextlib.ExitStack() as stack:
        # A form that can't run here is left out, but ours must run: all ratios refer to it.
        groups: dict[str, Group] = {}
        for name, form in forms.forms().items():
            environment = forms.environment(form, options.threads)
            try:
                group = Group(work, form.framework, form.options, environment=environment)
            except Absent as reason:
                if name == forms.OURS:
                    raise RuntimeError(f"{work}: {reason}") from None
                screen.note(f"{work}: no {name}: {reason}")
                continue
            stack.callback(group.close)
            # Times on a CPU and on an accelerator must not be compared.
            if group.device == groups.get(forms.OURS, group).device:
                groups[name] = group
            else:
                screen.note(f"{work}: no {name}: it sees only a {group.device}")
        screen.note(f"{work}: {options.rounds} rounds of {len(groups)} forms")
        candidates = {name: group.round for name, group in groups.items()}
        rounds = timing.in_turn(candidates, rounds=options.rounds)
    # Forms may take different numbers of steps a round, so seconds are per step.
    seconds = {n: [s / groups[n].steps for s in taken] for n, taken in rounds.items()}
    figures: dict[str, Any] = {
        name: {
            "ms": 1000 * timing.median(seconds[name]),
            "ratio": timing.ratio(seconds, name, forms.OURS),
            "version": group.version,
        }
        for name, group in groups.items()
    }
    rivals = [n for n in groups if forms.forms()[n].framework in PYTORCH]
    if rivals:
        figures[BEST] = min((figures[n] for n in rivals), key=lambda f: f["ratio"].median)
    return figures


def table(figures: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Returns a header, and one row per form: its name, its version, its ratio in every work."""
    names = [name for name in (*forms.forms(), BEST) if any(name in f for f in figures.values())]
    names.remove(forms.OURS)
    rows = [["a step there over a step here", "version", *figures]]
    for name in names:
        version = next(f[name]["version"] for f in figures.values() if name in f)
        ratios = [str(f[name]["ratio"]) if name in f else "–" for f in figures.values()]
        rows.append([name, "" if name == BEST else version, *ratios])
    return rows


def about(options: Options, figures: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Returns the machine, the versions and the settings that the figures are measured with."""
    ours = next(iter(figures.values()))[forms.OURS]
    cores = f"{processor.name()}, {os.cpu_count()} cores"
    return {
        "machine": cores,
        "processes": str(options.processes),
        "threads of each": str(options.threads // options.processes),
        "this pipeline": f"{ours['version']}, Python {platform.python_version()}",
        "rounds": str(options.rounds),
        **{f"{work}, ms a step here": f"{f[forms.OURS]['ms']:.4g}" for work, f in figures.items()},
    }


def main() -> int:
    """Reads the flags, compares, and writes the figures to the file that --json names."""
    return exit_codes.of(_command)


def _command() -> None:
    options, screen = parse(sys.argv), terminal.Terminal()
    figures = {work: _compared(work, options, screen) for work in options.works}
    screen.banner(about(options, figures))
    if options.processes > 1:
        for work, found in figures.items():
            screen.columns(f"{work} in {options.processes} processes", several.table(found))
    else:
        screen.columns("Same work in other frameworks: median and quartiles", table(figures))
    if options.json:
        figures_file.write(options.json, {"about": about(options, figures), "works": figures})
        screen.note(str(options.json))


def _compared(work: str, options: Options, screen: terminal.Terminal) -> dict[str, Any]:
    if options.processes == 1:
        return compare(work, options, screen)
    return several.compare(
        work,
        processes=options.processes,
        threads=options.threads,
        rounds=options.rounds,
        screen=screen,
    )


if __name__ == "__main__":
    exit_codes.leave(main())
