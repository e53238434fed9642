"""A picture of held-out images, each above its reconstruction."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals
from pipeline.display import pictures
from pipeline.training import batching, evaluation, step

COLUMNS = 8


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, picture), with up to two rows of pairs.

    Raises:
        InputError: the model reconstructs no images.
    """
    evals.check_model(config, "reconstruct", what="reconstructions", evaluation="reconstructions")
    del mesh
    example = datasets.example_spec(config)
    reconstruct = evaluation.make_method(config, example, "reconstruct")
    columns = min(COLUMNS, len(source))
    batch = batching.first_images(
        source, config, 2 * columns if 2 * columns <= len(source) else columns
    )

    inputs = datasets.pixels_of(example["image"]).unit(batch["image"])

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        outputs = np.asarray(jax.device_get(reconstruct(state, batch)))
        yield "heldout/reconstructions", lambda: _picture(inputs, outputs, columns)

    return evaluate


def _picture(inputs: np.ndarray, outputs: np.ndarray, columns: int) -> np.ndarray:
    rows: list[np.ndarray] = []
    texts: list[str] = []
    for first in range(0, len(inputs), columns):
        part = slice(first, first + columns)
        rows += [inputs[part], outputs[part]]
        texts += ["input", "decoded"]
    title = pictures.caption("", inputs.shape[-1])
    grid = pictures.grid(pictures.enlarged(np.concatenate(rows)), columns=columns)
    return pictures.to_uint8(pictures.framed(grid, rows=texts, title=title))
