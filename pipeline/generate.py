"""The command that generates: python -m pipeline.generate --workdir=RUN --labels=0,1,2 --num=8.

It writes generated.png and generated.npz to RUN/reports/<step>/, and nothing else of the run. The
i-th image of every row comes from the same z, so only the label changes along a column. With
--codes=SPLIT or --latents=SPLIT it writes what the model says of a split instead, and may then run
in several processes (see `outputs.encodings`). --tokens is the older form of --codes.

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

KINDS = ("tokens", "codes", "latents")  # of encodings
SAMPLING = (
    flags.Flag("temperature", "T", "divides the logits of codes", kind="float"),
    flags.Flag("top_k", "K", "draws only from the K likeliest codes", kind="integer"),
    flags.Flag("top_p", "P", "draws only from the likeliest codes of share P", kind="float"),
    flags.Flag("guidance", "W", "weight of classifier-free guidance", kind="float"),
)
COMMAND = command_line.Command(
    "pipeline.generate",
    "Draws images from a run's model, or writes the codes or latents of its data.",
    (
        flags.workdir("runs/conditional_vae"),
        flags.Flag("labels", "LABELS", "rows of images: cat,dog or 0,1,2 or all or 0,1;0,2", ""),
        flags.integer("num", "images in a row", 8, least=1),
        flags.integer("seed", "seed of the latents", 0),
        flags.STEP,
        flags.OUT,
        flags.Flag("codes", "SPLIT", "writes codes of train, heldout or all, and their decoder"),
        flags.Flag("latents", "SPLIT", "writes means and log-variances of train, heldout or all"),
        flags.Flag("tokens", "SPLIT", "--codes as older versions wrote them: train or heldout"),
        flags.CONFIG[1]._replace(text="as --config.data.path of moved data", shown="the run's"),
        flags.PROCESSES[0],
        flags.PROCESSES[4],
    ),
    (
        "--workdir=runs/conditional_vae --labels=0,1,2 --num=8",
        "--workdir=runs/vq_vae --codes=all",
    ),
    instead="--labels=0,1,2",
    codes="0 complete, 2 a mistake in the input, 75 a process missing, 130 Ctrl-C, 1 a fault",
    groups=(
        flags.Group(flags.PROCESSES[1:4], "as in training", "none"),
        flags.Group(SAMPLING, "only for runs of code_prior", "the run's"),
    ),
)


class Options(NamedTuple):
    """The values of the flags."""

    workdir: Path
    labels: str
    num: int
    seed: int
    step: str
    out: Path | None
    encodings: tuple[str, str] | None  # codes, latents or tokens, and the split; None: images
    sampling: dict[str, Any]  # by the field of `config.model.sampling`; None leaves it
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
    if not 0 <= values.seed < 2**32:
        raise errors.InputError(f"--seed={values.seed} must lie between 0 and 2³² − 1")
    return Options(
        workdir=flags.run(values.workdir),
        labels=values.labels,
        num=values.num,
        seed=values.seed,
        step=values.step,
        out=flags.out_or_none(values.out),
        encodings=_encodings(values),
        sampling={flag.name: values[flag.name].value for flag in SAMPLING},
        overrides=overrides,
        processes=flags.processes(values),
    )


def _encodings(values: Any) -> tuple[str, str] | None:
    """Returns what is written in place of images, and of which split; None: images.

    Raises:
        InputError: no such split, or flags that exclude each other.
    """
    given = [(kind, values[kind].value) for kind in KINDS if values[kind].value is not None]
    if not given:
        for name in ("coordinator", "num_processes", "process_id"):
            if values[name].present:
                raise errors.InputError(
                    f"--{name}={values[name].value} goes only with --tokens, --codes or --latents: "
                    "images come from one process"
                )
        return None
    (kind, split), *others = given
    if others:
        raise errors.InputError(
            f"--{kind}={split} and --{others[0][0]}={others[0][1]} exclude each other: choose one"
        )
    from pipeline.outputs import encodings

    encodings.check_split(kind, split)
    for name in ("labels", "num", "seed", *(flag.name for flag in SAMPLING)):
        if values[name].present:
            raise errors.InputError(
                f"--{name}={values[name].value} is for images: leave it out with --{kind}={split}"
            )
    return kind, split


def run(options: Options) -> Path:
    """Generates images or encodings, and returns the folder of the files.

    Raises:
        InputError: no run, no such checkpoint, labels that the model does not know, or encodings
            that it does not have.
    """
    from pipeline.nn import labels
    from pipeline.outputs import encodings, sampling_options, saved_settings, saved_state
    from pipeline.training import example_file, setup

    # A mistake must show before the restore.
    config = saved_settings.load(options.workdir, options.overrides)
    config = sampling_options.applied(config, options.sampling)
    example = example_file.of_run(config, options.workdir)
    names = tuple(config.model.get("conditions", ()))
    rows = labels.parse(options.labels, {name: example[name] for name in names})
    if options.encodings is not None:
        encodings.check_model(options.encodings[0], config, example)
    ready = setup.prepare_evaluation(config, example=example)
    at, state = saved_state.restore(options.workdir, options.step, ready)
    folder = options.out or options.workdir / "reports" / str(at)
    faults.check_writable(folder, hint="; --out=DIR names another folder")
    if options.encodings is None:
        _draw(options, ready, state, rows, at, folder)
    else:
        encodings.write(ready, state, *options.encodings, workdir=options.workdir, out=folder)
    return folder


def _draw(options: Options, ready: Any, state: Any, rows: Any, at: int, folder: Path) -> None:
    from pipeline import datasets
    from pipeline.evals import samples as sampled
    from pipeline.outputs import samples

    num, seed, title = options.num, options.seed, sampled.title(ready.config)
    pixels = datasets.shown_pixels(ready.example)
    images = samples.draw(ready, state, rows, num=num, seed=seed)
    samples.write(folder, images, pixels, rows, num=num, seed=seed, title=title)
    if title:
        print(title, samples.how_to_train_a_prior(options.workdir, at), sep="\n")


def main() -> int:
    """Reads the flags, generates, prints the paths of the files, and returns the exit code."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    allocator.keep_freed()
    options = parse(sys.argv)
    alone = options.encodings is None  # one process draws the images
    joined = cluster.joined(options.processes, "writing encodings")
    with contextlib.nullcontext() if alone else joined:
        folder = run(options)
    import jax

    from pipeline.outputs import encodings, samples

    if jax.process_index() == 0:
        files: tuple[str, ...] = samples.FILES
        if options.encodings is not None:
            files = encodings.descriptions(*options.encodings)
        print(*(folder / name for name in files), sep="\n")


if __name__ == "__main__":
    exit_codes.leave(main())
