"""The command that evaluates: python -m pipeline.evaluate --workdir=RUN [--step=best].

Runs the run's evaluations, and all others that apply to its model and data, on a checkpoint, and
writes metrics.json, pictures and index.html to RUN/reports/<step>/; nothing else of the run is
changed, also while it trains. With --compare RUN1 RUN2 … it puts runs side by side. In several
processes, process 0 writes. Exit codes: 0 complete; 2 a mistake in the input, one line says which;
130 after Ctrl-C; 1 a fault.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from pipeline import evals
from pipeline.display import terminal
from pipeline.mesh import sharding
from pipeline.outputs import comparison, report, report_files, saved_state
from pipeline.runtime import allocator, cluster, errors, exit_codes, run_config
from pipeline.runtime import command_line as process_flags


class Options(NamedTuple):
    """What was asked for."""

    runs: tuple[Path, ...]  # one, or those to compare
    compare: bool
    step: str
    evals: str
    batch_size: int
    out: Path | None
    overrides: tuple[str, ...]  # --config.field=value
    distributed: str
    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: an unknown flag, or a value that can't work.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow the runs
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_bool("compare", False, "Compare the runs that follow.", flag_values=values)
    flags.DEFINE_string("step", "best", "best, latest or a number.", flag_values=values)
    flags.DEFINE_string("evals", "all", "all that apply, or names.", flag_values=values)
    flags.DEFINE_integer("batch_size", 0, "Examples a batch; 0: the run's.", flag_values=values)
    flags.DEFINE_string("out", None, "Folder for the files.", flag_values=values)
    process_flags.define_processes(values)
    overrides = tuple(text for text in arguments if text.lstrip("-").startswith("config."))
    try:
        rest = values([text for text in arguments if text not in overrides])[1:]
    except flags.Error as error:
        raise errors.InputError(" ".join(str(error).split())) from None
    if values.compare:
        rest = [values.workdir, *rest] if values.workdir else rest
        if len(rest) < 2:
            raise errors.InputError("--compare needs two runs or more: --compare runs/a runs/b")
    elif rest:
        raise errors.InputError(f"argument {rest[0]!r} is not a flag: write --workdir={rest[0]}")
    elif values.workdir is None:
        raise errors.InputError(
            "--workdir is needed: python -m pipeline.evaluate --workdir=runs/beta_vae"
        )
    if values.batch_size < 0:
        raise errors.InputError(f"--batch_size={values.batch_size} must not be negative")
    evals.names(values.evals)  # its error comes first
    runs = rest if values.compare else [values.workdir]
    return Options(
        runs=tuple(Path(run).expanduser().absolute() for run in runs),
        compare=values.compare,
        step=values.step,
        evals=values.evals,
        batch_size=values.batch_size,
        out=Path(values.out).expanduser().absolute() if values.out else None,
        overrides=overrides,
        distributed=values.distributed,
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
    )


def run(options: Options) -> Path:
    """Evaluates, or compares, and returns the page that was written.

    Raises:
        InputError: no run, no such checkpoint, or evaluations that don't apply.
    """
    screen = terminal.Terminal(active=jax.process_index() == 0)
    if options.compare:
        return _compare(options, screen)
    folder, found = _evaluate(options.runs[0], options.step, options, screen, out=options.out)
    screen.table(f"Held-out figures at step {found['step']}", report_files.shown(found))
    return folder / "index.html"


def _compare(options: Options, screen: terminal.Terminal) -> Path:
    runs = []
    for workdir in options.runs:
        config = run_config.load(workdir)
        at = saved_state.number(workdir, options.step, config)
        folder = workdir / "reports" / str(at)
        found = report_files.read(folder)
        missing = found is None or not evals.covered(options.evals, found)
        # One process may see a file that another doesn't yet.
        if sharding.any_process(sharding.make_mesh({"data": -1}), missing):
            screen.note(f"{workdir} at step {at}")
            folder, found = _evaluate(workdir, str(at), options, screen)
        assert found is not None
        runs.append(comparison.Run(workdir, folder, found, run_config.flatten(config)))
    page = (options.out or Path.cwd()) / "compare.html"
    compared = comparison.compare(runs, across=[comparison.ranking])
    if jax.process_index() == 0:
        comparison.write(page, compared, screen)
    return page


def _evaluate(
    workdir: Path,
    at: str,
    options: Options,
    screen: terminal.Terminal,
    *,
    out: Path | None = None,
) -> tuple[Path, dict[str, Any]]:
    return report.make(
        workdir,
        at,
        asked=options.evals,
        batch_size=options.batch_size,
        overrides=options.overrides,
        out=out,
        screen=screen,
    )


def main() -> int:
    """Reads the flags, evaluates, and says where the page is."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    with cluster.joined(options, "evaluating"):
        page = run(options)
    if jax.process_index() == 0:
        print(page)


if __name__ == "__main__":
    exit_codes.leave(main())
