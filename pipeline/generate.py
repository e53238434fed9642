"""The command that generates: python -m pipeline.generate --workdir=RUN --labels=0,1,2 --num=8.

Writes samples.png and samples.npz to RUN/reports/<step>/ and changes nothing else of the run. The
i-th image of every row comes from the same z, so that along a column only the label changes. With
--tokens=train or heldout it writes the codes of that split instead (see `outputs.codes`), in as
many processes as there are. Exit codes: 0 complete; 2 a mistake in the input, one line says which;
130 after Ctrl-C; 1 a fault.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags

from pipeline import datasets
from pipeline.nn import labels
from pipeline.outputs import codes, samples, saved_state
from pipeline.runtime import allocator, cluster, errors, exit_codes, run_config
from pipeline.runtime import command_line as process_flags
from pipeline.training import setup


class Options(NamedTuple):
    """What was asked for."""

    workdir: Path
    labels: str
    num: int
    seed: int
    step: str
    out: Path | None
    tokens: str | None
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
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("labels", "", "Rows: 0,1,2 or all or 0,1;0,2.", flag_values=values)
    flags.DEFINE_integer("num", 8, "Images a row.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of the latents.", flag_values=values)
    flags.DEFINE_string("step", "best", "best, latest or a number.", flag_values=values)
    flags.DEFINE_string("out", None, "Folder for the files.", flag_values=values)
    flags.DEFINE_string("tokens", None, "Codes of a split: train, heldout.", flag_values=values)
    process_flags.define_processes(values)
    try:
        rest = values(list(arguments))
    except flags.Error as error:
        raise errors.InputError(" ".join(str(error).split())) from None
    if len(rest) > 1:
        raise errors.InputError(f"argument {rest[1]!r} is not a flag: write --labels=0,1,2")
    if values.workdir is None:
        raise errors.InputError(
            "--workdir is needed: python -m pipeline.generate --workdir=runs/conditional_vae"
        )
    _check_kind(values)
    if values.num < 1:
        raise errors.InputError(f"--num={values.num} must be at least 1")
    if not 0 <= values.seed < 2**32:
        raise errors.InputError(f"--seed={values.seed} must lie between 0 and 2³² − 1")
    return Options(
        workdir=Path(values.workdir).expanduser().absolute(),
        labels=values.labels,
        num=values.num,
        seed=values.seed,
        step=values.step,
        out=Path(values.out).expanduser().absolute() if values.out else None,
        tokens=values.tokens,
        distributed=values.distributed,
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
    )


def _check_kind(values: flags.FlagValues) -> None:
    """Raises an InputError where flags of images and of codes meet."""
    if values.tokens is None:
        for name in ("coordinator", "num_processes", "process_id"):
            if values[name].present:
                raise errors.InputError(
                    f"--{name}={values[name].value} goes with --tokens alone: images come from one "
                    "process"
                )
        return
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
    """Generates the images, or the codes, and returns the folder with the files.

    Raises:
        InputError: no run, no such checkpoint, labels that the model doesn't know, or codes that it
            doesn't have.
    """
    config = run_config.load(options.workdir)
    example = datasets.example_spec(config)
    names = tuple(config.model.get("conditions", ()))
    rows = labels.parse(options.labels, {name: example[name] for name in names})
    if options.tokens is not None:
        codes.model_of(config, example)  # its error comes before a checkpoint is read
    ready = setup.prepare_evaluation(config)
    at, state = saved_state.restore(options.workdir, options.step, ready)
    folder = options.out or options.workdir / "reports" / str(at)
    if options.tokens is not None:
        codes.write(ready, state, split=options.tokens, folder=folder)
        return folder
    images = samples.draw(ready, state, rows, num=options.num, seed=options.seed)
    samples.write(folder, images, rows, num=options.num, seed=options.seed)
    return folder


def main() -> int:
    """Reads the flags, generates, and says where the files are."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    alone = options.tokens is None  # pictures are made by one process
    with contextlib.nullcontext() if alone else cluster.joined(options, "writing codes"):
        folder = run(options)
    if jax.process_index() == 0:
        files = [f"tokens-{options.tokens}.json"]
        if options.tokens is None:
            files = ["samples.png", "samples.npz"]
        print(*(folder / name for name in files), sep="\n")


if __name__ == "__main__":
    exit_codes.leave(main())
