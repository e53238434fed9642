"""The command that generates: python -m pipeline.generate --workdir=RUN --labels=0,1,2 --num=8.

It writes generated.png and generated.npz to RUN/reports/<step>/, and nothing else of the run. The
i-th image of every row comes from the same z, so only the label changes along a column. With
--tokens=train or --tokens=heldout it writes the codes of that split instead (see `outputs.codes`),
and may then run in several processes.

Exit codes: 0 complete; 2 a mistake in the input, which one line names; 75 another process is
missing; 130 after Ctrl-C; 1 a fault.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime import allocator, cluster, command_line, errors, exit_codes, flags
from pipeline.runtime.storage import faults

COMMAND = command_line.Command(
    "pipeline.generate",
    "Draws images from a run's model, or writes the codes of its data.",
    (
        flags.workdir("runs/conditional_vae"),
        flags.Flag("labels", "LABELS", "rows of images: cat,dog or 0,1,2 or all or 0,1;0,2", ""),
        flags.integer("num", "images in a row", 8, least=1),
        flags.integer("seed", "seed of the latents", 0),
        flags.STEP,
        flags.OUT,
        flags.Flag("tokens", "train|heldout", "writes the codes of this split, and no images"),
        flags.CONFIG[1]._replace(text="as --config.data.path of moved data", shown="the run's"),
        *flags.PROCESSES,
    ),
    (
        "--workdir=runs/conditional_vae --labels=0,1,2 --num=8",
        "--workdir=runs/vq_vae --tokens=train",
    ),
    instead="--labels=0,1,2",
    codes="0 complete, 2 a mistake in the input, 75 a process missing, 130 Ctrl-C, 1 a fault",
)


class Options(NamedTuple):
    """The values of the flags."""

    workdir: Path
    labels: str
    num: int
    seed: int
    step: str
    out: Path | None
    tokens: str | None
    overrides: tuple[str, ...]  # --config.field=value
    processes: flags.Processes


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: an unknown flag, or a value that cannot work.
    """
    from pipeline.outputs import saved_settings

    arguments, overrides = saved_settings.split(arguments)
    values = COMMAND.parse(arguments)
    _check_kind(values)
    if not 0 <= values.seed < 2**32:
        raise errors.InputError(f"--seed={values.seed} must lie between 0 and 2³² − 1")
    return Options(
        workdir=flags.run(values.workdir),
        labels=values.labels,
        num=values.num,
        seed=values.seed,
        step=values.step,
        out=flags.out_or_none(values.out),
        tokens=values.tokens,
        overrides=overrides,
        processes=flags.processes(values),
    )


def _check_kind(values: Any) -> None:
    """Raises an InputError if flags for images and flags for codes are given together."""
    if values.tokens is None:
        for name in ("coordinator", "num_processes", "process_id"):
            if values[name].present:
                raise errors.InputError(
                    f"--{name}={values[name].value} goes only with --tokens: images come from one "
                    "process"
                )
        return
    from pipeline.outputs import codes

    if values.tokens not in codes.SPLITS:
        raise errors.InputError(
            f"--tokens={values.tokens} is no split: choose {' or '.join(codes.SPLITS)}"
        )
    for name in ("labels", "num", "seed"):
        if values[name].present:
            raise errors.InputError(
                f"--{name}={values[name].value} is for images: leave it out with "
                f"--tokens={values.tokens}"
            )


def run(options: Options) -> Path:
    """Generates images or codes, and returns the folder of the files.

    Raises:
        InputError: no run, no such checkpoint, labels that the model does not know, or codes that
            it does not have.
    """
    import jax

    from pipeline import datasets
    from pipeline.display import terminal
    from pipeline.evals import samples as sampled
    from pipeline.nn import labels
    from pipeline.outputs import codes, samples, saved_settings, saved_state
    from pipeline.training import example_file, fingerprint, setup

    config = saved_settings.load(options.workdir, options.overrides)
    example = example_file.of_run(config, options.workdir)
    names = tuple(config.model.get("conditions", ()))
    rows = labels.parse(options.labels, {name: example[name] for name in names})
    if options.tokens is not None:
        codes.model_of(config, example)  # a model without codes must fail before the restore
    ready = setup.prepare_evaluation(config, example=example)
    at, state = saved_state.restore(options.workdir, options.step, ready)
    folder = options.out or options.workdir / "reports" / str(at)
    faults.check_writable(folder, hint="; --out=DIR names another folder")
    if options.tokens is not None:
        for text in fingerprint.changes(datasets.load(config), options.workdir):
            terminal.Terminal(active=jax.process_index() == 0).warn(text)
        codes.write(ready, state, split=options.tokens, folder=folder)
        return folder
    images = samples.draw(ready, state, rows, num=options.num, seed=options.seed)
    title = sampled.title(config)
    pixels = datasets.pixels_of(example["image"])
    samples.write(folder, images, pixels, rows, num=options.num, seed=options.seed, title=title)
    if title:
        print(title)
    return folder


def main() -> int:
    """Reads the flags, generates, prints the paths of the files, and returns the exit code."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    alone = options.tokens is None  # one process draws the images
    with contextlib.nullcontext() if alone else cluster.joined(options.processes, "writing codes"):
        folder = run(options)
    import jax

    from pipeline.outputs import samples

    if jax.process_index() == 0:
        files = [f"tokens-{options.tokens}.json"]
        if options.tokens is None:
            files = list(samples.FILES)
        print(*(folder / name for name in files), sep="\n")


if __name__ == "__main__":
    exit_codes.leave(main())
