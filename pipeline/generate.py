"""The command that generates: python -m pipeline.generate --workdir=RUN --labels=0,1,2 --num=8.

Writes samples.png and samples.npz to RUN/reports/<step>/ and changes nothing else of the run. The
i-th image of every row comes from the same z, so that along a column only the label changes. Exit
codes: 0 complete; 2 a mistake in the input, one line says which; 1 a fault.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from PIL import Image

from pipeline import checkpoint, data, errors, label_rows, pictures, run_config, sharding, step

CHUNK = 256  # images decoded at a time
MAX_COLUMNS = 32  # images in a row of the picture; the npz file has all of them


class Options(NamedTuple):
    """What was asked for."""

    workdir: Path
    labels: str
    num: int
    seed: int
    step: str
    out: Path | None


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
    )


def run(options: Options) -> Path:
    """Generates the images and returns the folder with the files.

    Raises:
        InputError: no run, no such checkpoint, or labels that the model doesn't know.
    """
    config = run_config.load(options.workdir)
    example = data.example_spec(config)
    names = tuple(config.model.get("conditions", ()))
    rows = label_rows.parse(options.labels, {name: example[name] for name in names})
    abstract = step.abstract_state(config, example)
    mesh = sharding.make_mesh({"data": -1})  # of this machine, whatever the run's was
    at, state = _restore(options, config, abstract, mesh)

    conditions = {name: np.repeat(rows.entries[name], options.num, axis=0) for name in rows.entries}
    sample = step.make_method(config, example, "sample")
    keys = _keys(options.seed, options.num, max(len(rows.texts), 1))
    images = pictures.to_uint8(_in_chunks(sample, state, keys, conditions))

    folder = options.out or options.workdir / "reports" / str(at)
    arrays: dict[str, Any] = {"images": images, "seed": options.seed}
    if rows.texts:
        arrays["labels"] = np.repeat(rows.values, options.num, axis=0)
    picture = Image.fromarray(_picture(images, rows.texts, options.num))
    with errors.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "samples.npz", **arrays)
        picture.save(folder / "samples.png")
    return folder


def _restore(options: Options, config: Any, abstract: Any, mesh: Mesh) -> tuple[int, Any]:
    """Returns the step that was asked for, and its state."""
    folder = options.workdir / "checkpoints"
    if not folder.is_dir():
        raise errors.InputError(f"--workdir={options.workdir} has no checkpoint yet")
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint, read_only=True)
    steps = checkpoints.steps()
    if not steps:
        raise errors.InputError(f"--workdir={options.workdir} has no checkpoint yet")
    listed = ", ".join(map(str, steps))
    choices: dict[str, int | None] = {str(number): number for number in steps}
    choices |= {"latest": steps[-1], "best": checkpoints.best_step()}
    if options.step not in choices:
        raise errors.InputError(
            f"--step={options.step} is no checkpoint of this run: choose best, latest or one of "
            f"{listed}"
        )
    at = choices[options.step]
    if at is None:
        raise errors.InputError(
            f"--step=best: no checkpoint was evaluated yet; use --step=latest or one of {listed}"
        )
    state = checkpoints.restore(at, abstract, mesh)
    checkpoints.close()
    return at, state


def _keys(seed: int, num: int, rows: int) -> jax.Array:
    """Returns [rows·num] keys, the same `num` in every row."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return fold(jax.random.key(seed), np.tile(np.arange(num, dtype=np.uint32), rows))


def _in_chunks(sample: Any, state: Any, keys: jax.Array, conditions: Any) -> np.ndarray:
    chunks = []
    for first in range(0, len(keys), CHUNK):
        part = slice(first, first + CHUNK)
        given = ({name: values[part] for name, values in conditions.items()},) if conditions else ()
        chunks.append(np.asarray(jax.device_get(sample(state, keys[part], *given))))
    return np.concatenate(chunks)


def _picture(images: np.ndarray, texts: Sequence[str], num: int) -> np.ndarray:
    """Returns uint8 [H, W] or [H, W, 3]: a row a label, or all samples of the prior."""
    columns = min(num, MAX_COLUMNS)
    if texts:
        shown = images.reshape(len(texts), num, *images.shape[1:])[:, :columns]
        images = shown.reshape(-1, *images.shape[1:])
    picture = pictures.grid(images / np.float32(255), columns=columns)
    if texts:
        picture = pictures.beside(texts, picture)
    pixels = pictures.to_uint8(picture)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def main() -> int:
    """Reads the flags, generates, and says where the files are."""
    try:
        folder = run(parse(sys.argv))
    except errors.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {errors.reason(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}".split("\n")[0], file=sys.stderr)
        return 1
    print(f"{folder / 'samples.png'}\n{folder / 'samples.npz'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
