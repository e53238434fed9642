"""Images drawn from a run's model, and the files that show them: generated.png and generated.npz.

The i-th image of every row comes from the same z, so only the label changes along a column.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from pipeline import datasets
from pipeline.display import pictures
from pipeline.nn import labels
from pipeline.runtime import files
from pipeline.runtime.storage import faults
from pipeline.training import evaluation, setup

CHUNK = 256  # images decoded at a time
MAX_COLUMNS = 32  # images in a row of the picture; the npz file has all of them
# An evaluation writes samples.png into the same folder, so these names differ from it.
FILES = ("generated.png", "generated.npz")


def draw(ready: setup.Setup, state: Any, rows: labels.Rows, *, num: int, seed: int) -> np.ndarray:
    """Returns `num` images per row of labels, [N, H, W, C] float32 in [0, 1].

    Without rows, it returns `num` images drawn from the prior.
    """
    conditions = {name: np.repeat(rows.entries[name], num, axis=0) for name in rows.entries}
    sample = evaluation.make_method(ready.config, ready.example, "sample")
    drawn = keys(seed, num, rows=max(len(rows.texts), 1))
    return _in_chunks(sample, state, drawn, conditions)


def write(
    folder: Path,
    images: np.ndarray,
    pixels: datasets.Pixels,
    rows: labels.Rows,
    *,
    num: int,
    seed: int,
    title: str = "",
) -> None:
    """Writes a picture of the images, and a file of `images`, `seed`, maybe `labels` and `names`.

    Args:
        folder: for both files; it is made if it is missing.
        images: [N, H, W, C] in [0, 1], from `draw`.
        pixels: the dtype and range in which the data set has images, and the file too.
        rows: of labels; without any, the file has no `labels` and `names`.
        num: images a row.
        seed: of the latents.
        title: above the picture.
    """
    arrays: dict[str, Any] = {"images": pixels.restored(images), "seed": seed}
    if rows.texts:
        arrays["labels"] = np.repeat(rows.values, num, axis=0)
        arrays["names"] = np.repeat(np.array(rows.names), num)
    picture = Image.fromarray(_picture(images, rows.texts, num, title))
    with faults.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(folder / FILES[1]) as file:
            np.savez(file, **arrays)
        with files.replacing(folder / FILES[0]) as file:
            picture.save(file, format="PNG")


def how_to_train_a_prior(workdir: Path, at: int) -> str:
    """Returns the commands by which a run whose codes have no prior gets samples, in two lines.

    Args:
        workdir: of the run.
        at: the step of its checkpoint.
    """
    run, data = (shlex.quote(str(path)) for path in (workdir, workdir / "reports" / str(at)))
    return (
        "To get samples, train a prior over the codes: python -m pipeline.generate "
        f"--workdir={run} --step={at} --codes=all\n"
        "and then: python -m pipeline.train --config=configs/code_prior.py "
        f"--config.data.path={data} --workdir=runs/code_prior"
    )


def keys(seed: int, num: int, *, rows: int = 1) -> jax.Array:
    """Returns [rows·num] keys: the same `num` keys in every row."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return fold(jax.random.key(seed), np.tile(np.arange(num, dtype=np.uint32), rows))


def _in_chunks(sample: Any, state: Any, keys: jax.Array, conditions: Any) -> np.ndarray:
    chunks = []
    for first in range(0, len(keys), CHUNK):
        part = slice(first, first + CHUNK)
        given = ({name: values[part] for name, values in conditions.items()},) if conditions else ()
        chunks.append(np.asarray(jax.device_get(sample(state, keys[part], *given))))
    return np.concatenate(chunks)


def _picture(images: np.ndarray, texts: Sequence[str], num: int, title: str) -> np.ndarray:
    """Returns uint8 [H, W] or [H, W, 3]: a row per label, or all samples of the prior."""
    columns = min(num, MAX_COLUMNS)
    if texts:
        shown = images.reshape(len(texts), num, *images.shape[1:])[:, :columns]
        images = shown.reshape(-1, *images.shape[1:])
    title = pictures.caption(title, images.shape[-1])
    picture = pictures.grid(pictures.enlarged(images), columns=columns)
    if texts or title:
        picture = pictures.framed(picture, rows=texts, title=title)
    pixels = pictures.to_uint8(picture)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
