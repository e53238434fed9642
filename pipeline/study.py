"""The command of studies: python -m pipeline.study --config=configs/studies/… --workdir=DIR.

A study is several methods with several seeds. Each run is a normal one, in DIR/<method>/seed<k>, so
all other commands work on it. All runs are checked first. Then they are trained and evaluated one
after another, each by a process of its own with all devices, and DIR/index.html compares them.
--index and --of take a part of the runs; --page then makes the page of what is there.

Exit codes: 0 complete; 2 a mistake in the input, which one line names; 75 stopped by a signal and
130 by Ctrl-C: the run that was under way is saved, and the same command goes on there. If a run
fails, the others are run all the same, and the study ends with the code of the first failure.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.outputs.studies import children, declared, fields
from pipeline.runtime import allocator, command_line, errors, exit_codes, flags

COMMAND = command_line.Command(
    "pipeline.study",
    "Trains and evaluates several methods with several seeds, and compares them on a page.",
    (
        flags.Flag("config", "FILE", "study, with presets after a colon", example=fields.EXAMPLE),
        flags.CONFIG[1]._replace(text="overrides a field of every run", shown="the study's"),
        flags.workdir("runs/study")._replace(text="folder of the study"),
        flags.integer("index", "which part of the runs to take, from 0", 0, least=0),
        flags.integer("of", "number of parts: run k belongs to part k modulo N", 1, least=1),
        flags.integer("replicas", "how many seeds of a method train in one program", 1, least=1),
        flags.switch("dry_run", "checks and lists the runs, and leaves"),
        flags.switch("page", "only makes the page, of the runs that are complete"),
    ),
    (
        "--config=configs/studies/disentanglement.py --workdir=runs/study",
        "--config=disentanglement --workdir=runs/study --index=0 --of=5",
    ),
    codes="0 complete, 2 a mistake in the input, 75 or 130 stopped and saved, 1 a fault",
)


class Options(NamedTuple):
    """The values of the flags."""

    study: declared.Study
    workdir: Path
    part: int  # --index
    of: int
    dry_run: bool
    page: bool
    again: tuple[str, ...]  # the arguments that name the study

    @property
    def share(self) -> list[tuple[declared.Planned, ...]]:
        """The runs of this part, in groups that train together."""
        return self.study.share(self.part, self.of)


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv` and builds the configs of all runs.

    Raises:
        InputError: an unknown flag, or a study that cannot work.
    """
    from pipeline.outputs import saved_settings

    arguments, overrides = saved_settings.split(arguments)
    values = COMMAND.parse(arguments)
    if values.index >= values.of:
        raise errors.InputError(
            f"--index={values.index} --of={values.of}: parts are numbered from 0 to {values.of - 1}"
        )
    workdir = flags.path(values.workdir, name="--workdir")
    return Options(
        study=declared.read(values.config, workdir, overrides, replicas=values.replicas),
        workdir=workdir,
        part=values.index,
        of=values.of,
        dry_run=values.dry_run,
        page=values.page,
        again=(
            *(f"--config={values.config}", f"--workdir={workdir}", *overrides),
            f"--replicas={values.replicas}",
        ),
    )


def check(options: Options) -> None:
    """Checks all runs against the devices and the data, and lists those of this part.

    Raises:
        InputError: a run that cannot work.
    """
    from pipeline.display import terminal, texts
    from pipeline.outputs.studies import checks

    checks.check(options.study, options.part, options.of)
    screen, total = terminal.Terminal(), texts.counted(len(options.study.runs), "run")
    part = f", part {options.part} of {options.of}" if options.of > 1 else ""
    states = {
        run.name: _state(options.study, run, within=options.study.training(group))
        for group in options.share
        for run in group
    }
    screen.table(f"Study {options.study.title}, {total}{part}", states)


def run(options: Options) -> int:
    """Runs this part of the study, and returns the exit code."""
    python, share = (sys.executable, "-m"), options.share
    part = (f"--index={options.part}", f"--of={options.of}")
    with children.Children() as started:
        # A process of its own checks the runs and ends, so that it holds no device afterwards.
        code = started.run((*python, COMMAND.module, *options.again, *part, "--dry_run"))
        if code:
            return started.code if started.asked else code
        failed: dict[str, int] = {}
        noun = "run" if options.study.replicas == 1 else "group"
        for number, group in enumerate(share, start=1):
            at = f"{noun} {number} of {len(share)}"
            for doing, name, arguments in _commands(options.study, group):
                print(f"\n{at}: {doing} {name}", flush=True)
                code = started.run((*python, *arguments))
                # A preemption may stop this command alone: then the study stops, too.
                if started.asked or code in children.STOPPED:
                    print(f"Stopped at {at}: run again to go on there.")
                    if started.asked:
                        return started.code
                    return code if code == exit_codes.INTERRUPTED else exit_codes.RETRY
                if code:
                    failed[name] = code
                    break
        for name, code in failed.items():
            errors.say(f"error: {name} ended with exit code {code}; its lines are above")
        if failed:
            return next(iter(failed.values()))
        if options.of > 1:
            print("This part is complete; after the last one, --page makes the page.")
            return exit_codes.COMPLETE
        code = started.run((*python, COMMAND.module, *options.again, "--page"))
        return started.code if started.asked else code


def page(options: Options) -> Path:
    """Writes the page of the runs that are trained and evaluated, and returns its path.

    Raises:
        InputError: there is no such run.
    """
    from pipeline.display import terminal
    from pipeline.outputs.studies import page as pages
    from pipeline.outputs.studies import results

    return pages.write(options.workdir, results.gather(options.study), terminal.Terminal())


def _commands(
    study: declared.Study, group: Sequence[declared.Planned]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yields what is left to do for runs that train together: (word, name, arguments of Python)."""
    off = "--distributed=off"
    if not all(run.is_trained for run in group):
        whole = study.training(group)
        name = group[0].name if len(group) == 1 else f"{group[0].name} to seed{group[-1].seed}"
        arguments = ("pipeline.train", *whole.arguments, f"--workdir={whole.workdir}", off)
        yield "training", name, arguments
    evals = f"--evals={','.join(study.evals)}"
    for run in group:
        if not study.is_evaluated(run):
            of_run = (f"--workdir={run.workdir}", "--step=latest", evals, off)
            yield "evaluating", run.name, ("pipeline.evaluate", *of_run)


def _state(study: declared.Study, planned: declared.Planned, *, within: declared.Planned) -> str:
    if planned.is_trained:
        return "complete" if study.is_evaluated(planned) else "trained, not evaluated"
    return f"step {within.steps_done:,} of {planned.config.total_steps:,}"


def main() -> int:
    """Reads the flags, runs the study or its page, and returns the exit code."""
    return exit_codes.of(_command, again=True)


def _command() -> int:
    allocator.keep_freed()
    options = parse(sys.argv)
    if options.dry_run:
        check(options)
    elif options.page:
        print(page(options))
    else:
        return run(options)
    return exit_codes.COMPLETE


if __name__ == "__main__":
    exit_codes.leave(main())
