"""The command that exports: python -m pipeline.export --workdir=RUN --out=DIR.

DIR then holds a trained model that needs neither this package nor the run: its functions, its
arrays, a model card, and a program that uses them (see `outputs.exporting`). The run is only read.

Exit codes: 0 complete; 2 a mistake in the input, which one line names; 130 after Ctrl-C; 1 a fault.
"""

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime import command_line, errors, exit_codes, flags

COMMAND = command_line.Command(
    "pipeline.export",
    "Makes a folder of a trained model that needs only jax, or ONNX.",
    (
        flags.workdir("runs/beta_vae"),
        flags.Flag("out", "DIR", "new folder, on this computer", example="exports/beta_vae"),
        flags.STEP,
        flags.switch("onnx", "also writes files of ONNX, with the extra onnx"),
        flags.switch("all_arrays", "also those that only training reads: a discriminator's"),
        flags.Flag("license", "NAME", "licence that the model card states", "unknown"),
    ),
    (
        "--workdir=runs/beta_vae --out=exports/beta_vae",
        "--workdir=runs/vq_vae --out=exports/vq_vae --onnx --license=mit",
    ),
)
PRIOR = "A prior over the codes draws samples: configs/code_prior.py of vae-pipeline."
LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


class Options(NamedTuple):
    """The values of the flags."""

    workdir: Path
    out: Path
    step: str
    onnx: bool
    all_arrays: bool
    license: str


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: an unknown flag, or a value that cannot work.
    """
    values = COMMAND.parse(arguments)
    if not LICENSE.fullmatch(values.license):
        raise errors.InputError(
            f"--license={values.license}: write the short name of a licence, such as mit or "
            "cc-by-4.0"
        )
    return Options(
        workdir=flags.run(values.workdir),
        out=flags.path(values.out, name="--out"),
        step=values.step,
        onnx=values.onnx,
        all_arrays=values.all_arrays,
        license=values.license,
    )


def run(options: Options) -> Path:
    """Exports the model, and returns the folder.

    Raises:
        InputError: no run, no such checkpoint, a folder that exists, or nothing that ONNX takes.
        OSError: the folder cannot be written.
    """
    from pipeline.display import terminal
    from pipeline.outputs import saved_settings, trained
    from pipeline.outputs.exporting import folder, functions, onnx_files

    folder.check_out(options.out)
    if options.onnx:
        onnx_files.check_installed()
    config = saved_settings.load(options.workdir)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = trained.load(options.workdir, step=options.step)
    screen = terminal.Terminal()
    for one in caught:
        screen.warn(str(one.message))
    chosen = functions.of(model, training=options.all_arrays)
    made = folder.make(model, config, chosen)
    files: dict[str, bytes] = {}
    told: list[str] = []
    if options.onnx:
        files, refused = onnx_files.convert(model, chosen)
        told = [f"{name} has no file of ONNX: {reason}" for name, reason in refused.items()]
        if not files:
            raise errors.InputError(f"--onnx: nothing can be converted ({'; '.join(told)})")
        for text in told:
            screen.warn(text)
    texts = texts_of(options, config, model.step, told)
    folder.write(options.out, made, texts, files)
    return options.out


def texts_of(options: Options, config: Any, step: int, told: Sequence[str] = ()) -> Any:
    """Returns the `model_card.Texts` of an export; `told` is what could not be converted."""
    from pipeline.evals import samples
    from pipeline.outputs.exporting import model_card, provenance
    from pipeline.runtime import registry

    variant = registry.load("models", config.model.name, field="model.name")
    above = samples.title(config)
    further = [f"--{name}" for name in ("onnx", "all_arrays") if getattr(options, name)]
    further += [f"--license={options.license}"]
    return model_card.Texts(
        run=options.workdir.name,
        variant=(variant.__doc__ or "").split("\n\n")[0],
        license=options.license,
        figures=provenance.figures(options.workdir, step),
        training=provenance.training_command(config, options.workdir),
        export=provenance.export_command(options.workdir, options.out, step, further),
        notes=(*([f"`sample`: {above}. {PRIOR}"] if above else []), *_sampling(config), *told),
    )


def _sampling(config: Any) -> list[str]:
    """Returns a text about settings of sampling, which are a part of the program."""
    settings = sorted(config.model.get("sampling", {}).items())
    text = ", ".join(f"{name}={value}" for name, value in settings)
    return [f"`sample` draws with {text}."] if text else []


def main() -> int:
    """Reads the flags, exports, prints the paths of the files, and returns the exit code."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    folder = run(parse(sys.argv))
    print(*sorted(folder.iterdir()), sep="\n")


if __name__ == "__main__":
    exit_codes.leave(main())
