"""The command that evaluates: python -m pipeline.evaluate --workdir=RUN [--step=best].

It restores a checkpoint and runs the run's evaluations, and all others that apply and take seconds.
It writes metrics.json, pictures and index.html to RUN/reports/<step>/ and changes nothing else of
the run, which may still train. With --compare RUN1 RUN2 … it puts runs side by side. If there are
several processes, process 0 writes.

Exit codes: 0 complete; 2 a mistake in the input, which one line names; 75 another process is
missing; 130 after Ctrl-C; 1 a fault.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime import allocator, cluster, command_line, errors, exit_codes, flags

COMMAND = command_line.Command(
    "pipeline.evaluate",
    "Evaluates a checkpoint of a run, or compares runs: figures, pictures and index.html.",
    (
        flags.workdir(),
        flags.switch("compare", "compares the runs that follow"),
        flags.STEP,
        flags.Flag("evals", "NAME[,…]", "evaluations; quick: those of seconds; all", "quick"),
        flags.integer("batch_size", "examples a batch; 0: as in the run", 0),
        flags.OUT,
        flags.CONFIG[1]._replace(
            text="overrides a field that a resumed run may change", shown="the run's"
        ),
        *flags.PROCESSES,
    ),
    ("--workdir=runs/beta_vae", "--compare runs/beta_vae runs/capacity_vae --step=latest"),
    arguments="[RUN …]",
    codes="0 complete, 2 a mistake in the input, 75 a process missing, 130 Ctrl-C, 1 a fault",
)


class Options(NamedTuple):
    """The values of the flags."""

    runs: tuple[Path, ...]  # one, or those to compare
    compare: bool
    step: str
    evals: str
    batch_size: int
    out: Path | None
    overrides: tuple[str, ...]  # --config.field=value
    processes: flags.Processes


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: an unknown flag, or a value that cannot work.
    """
    # Overrides apply to the config of a run, which `outputs.report` loads later.
    from pipeline.outputs import saved_settings

    arguments, overrides = saved_settings.split(arguments)
    values, rest = COMMAND.read(arguments)
    # --compare takes the runs as arguments; otherwise --workdir names the only run.
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
    errors.check_not_negative("--batch_size", values.batch_size)
    from pipeline import evals

    evals.names(values.evals)  # an unknown name must fail before any run is read
    runs = rest if values.compare else [values.workdir]
    return Options(
        runs=tuple(flags.run(run) for run in runs),
        compare=values.compare,
        step=values.step,
        evals=values.evals,
        batch_size=values.batch_size,
        out=flags.out_or_none(values.out),
        overrides=overrides,
        processes=flags.processes(values),
    )


def run(options: Options) -> Path:
    """Evaluates a run or compares runs, and returns the path of the page.

    Raises:
        InputError: no run, no such checkpoint, or evaluations that do not apply.
    """
    import jax

    from pipeline.display import terminal

    screen = terminal.Terminal(active=jax.process_index() == 0)
    if options.compare:
        return _compare(options, screen)
    folder, found = _evaluate(options.runs[0], options.step, options, screen, out=options.out)
    screen.figures(f"Held-out figures at step {found['step']}", found["figures"])
    return folder / "index.html"


def _compare(options: Options, screen: Any) -> Path:
    import jax

    from pipeline.mesh import agreement, sharding
    from pipeline.outputs import comparison
    from pipeline.runtime import run_config

    configs = [run_config.load(workdir) for workdir in options.runs]
    mesh = sharding.make_mesh({"data": -1})
    runs = []
    for workdir, config in zip(options.runs, configs, strict=True):
        # A run that cannot be evaluated must not take the others with it.
        folder, found, fault = workdir, None, None
        try:
            folder, found = _reported(workdir, config, mesh, options, screen)
        except (errors.InputError, OSError) as error:
            fault = error
        if agreement.any_process(mesh, fault is not None):
            screen.warn(f"{workdir} is left out: {fault or 'another process failed'}")
        else:
            assert found is not None
            runs.append(comparison.Run(workdir, folder, found, run_config.flatten(config)))
    if len(runs) < 2:
        raise errors.InputError("--compare needs two runs or more that can be evaluated")
    page = (options.out or Path.cwd()) / "compare.html"
    compared = comparison.compare(runs, across=[comparison.ranking])
    if jax.process_index() == 0:
        comparison.write(page, compared, screen)
    return page


def _reported(
    workdir: Path, config: Any, mesh: Any, options: Options, screen: Any
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of a run's report and the contents of metrics.json, made if needed."""
    from pipeline import evals
    from pipeline.mesh import agreement
    from pipeline.outputs import saved_reports, saved_state

    at = saved_state.number(workdir, options.step, config)
    folder, found = workdir / "reports" / str(at), None
    try:
        found = saved_reports.read(folder, workdir)
    except saved_reports.Damaged as error:
        screen.warn(f"{folder / 'metrics.json'} is damaged ({error}): evaluating again")
    missing = found is None or not evals.covered(options.evals, found)
    # A shared file system may show a file to one process before another. All must agree,
    # because an evaluation is collective.
    if agreement.any_process(mesh, missing):
        screen.note(f"{workdir} at step {at}")
        folder, found = _evaluate(workdir, str(at), options, screen)
    assert found is not None
    return folder, found


def _evaluate(
    workdir: Path, at: str, options: Options, screen: Any, *, out: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    from pipeline.outputs import report

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
    """Reads the flags, evaluates, prints the path of the page, and returns the exit code."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    with cluster.joined(options.processes, "evaluating"):
        page = run(options)
    import jax

    if jax.process_index() == 0:
        print(page)


if __name__ == "__main__":
    exit_codes.leave(main())
