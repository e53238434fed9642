"""Held-out images, the codes that a VQ-VAE assigns to them, and its reconstructions.

The colour of a code shows its vector, projected onto the three principal components of all vectors
in the picture. So codes with similar vectors look similar, whatever their numbers.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals
from pipeline.display import curves, pictures
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, step


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → inputs, code maps and reconstructions.

    Raises:
        InputError: the model has no codes, or `config.code_maps.num` is below 1.
    """
    evals.check_model(config, "vectors", what="codes", evaluation="code_maps")
    errors.check_range("config.code_maps.num", config.code_maps.num, 1)
    example = datasets.example_spec(config)
    encode, vectors, decode = (
        evaluation.make_method(config, example, name) for name in ("encode", "vectors", "decode")
    )
    del mesh
    images = batching.first_images(source, config, config.code_maps.num)["image"]
    inputs = datasets.pixels_of(example["image"]).unit(images)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        codes = np.asarray(jax.device_get(encode(state, images)))
        seen = np.asarray(jax.device_get(vectors(state, codes)))
        outputs = np.asarray(jax.device_get(decode(state, codes)))
        yield "heldout/code_maps", lambda: picture(inputs, seen, outputs)

    return evaluate


def colours(seen: np.ndarray) -> np.ndarray:
    """Returns colours [..., 3] in [0, 1] for vectors [..., D]; similar vectors look similar."""
    flat = seen.reshape(-1, seen.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    directions = directions[:3]
    # The sign of a direction is arbitrary. A positive largest entry makes steps comparable.
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    found = np.zeros((len(flat), 3))
    found[:, : len(directions)] = flat @ directions.T
    low, high = np.quantile(found, (0.02, 0.98), axis=0)
    spread = np.where(high > low, high - low, 1.0)
    # Colours avoid black and white, which inputs and reconstructions use.
    return 0.1 + 0.8 * np.clip((found - low) / spread, 0.0, 1.0).reshape(*seen.shape[:-1], 3)


def picture(inputs: np.ndarray, seen: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 3]: a row of inputs, one of their code maps, one of reconstructions.

    Args:
        inputs: [N, H, W, C] in [0, 1].
        seen: the codes' vectors, [N, h, w, D].
        outputs: as `inputs`.
    """
    drawn = pictures.enlarged(np.concatenate([inputs, outputs]), side=96)
    height, width = drawn.shape[1:3]
    maps = colours(seen).astype(np.float32)
    if curves.fit(inputs):  # a curve runs from left to right
        maps = maps.reshape(len(maps), 1, -1, 3)
    # Each pixel has the colour of the code above it, whatever the two sizes are.
    down = np.arange(height) * maps.shape[1] // height
    across = np.arange(width) * maps.shape[2] // width
    first, last = np.split(_in_colour(drawn), 2)
    rows = np.concatenate([first, maps[:, down[:, None], across], last])
    grid = pictures.grid(rows, columns=len(inputs))
    texts = ("input", f"{seen.shape[1]} by {seen.shape[2]} codes", "decoded")
    title = "Held-out examples and their codes: alike colours are alike vectors"
    title = pictures.caption(title, inputs.shape[-1])
    return pictures.to_uint8(pictures.framed(grid, rows=texts, title=title))


def _in_colour(images: np.ndarray) -> np.ndarray:
    images = pictures.seen(images)
    return np.broadcast_to(images, (*images.shape[:3], 3))
