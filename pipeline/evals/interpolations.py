"""Interpolations: images decoded along the straight line between two held-out examples' means.

A conditional model gets the first example's conditions for the whole line, so only z changes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals
from pipeline.display import pictures
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, posteriors, step


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → one row per pair, with the inputs at both ends.

    Raises:
        InputError: no Gaussian posterior, or a field of `config.interpolations` that cannot work.
    """
    evals.check_model(config, "posterior", what="Gaussian posterior", evaluation="interpolations")
    settings = config.interpolations
    for field, least in (("steps", 2), ("pairs", 1)):
        errors.check_range(f"config.interpolations.{field}", settings[field], least)
    if 2 * settings.pairs > len(source):
        raise errors.InputError(
            f"config.interpolations.pairs={settings.pairs} needs twice as many held-out examples, "
            f"and there are {len(source)}"
        )
    del mesh
    example = datasets.example_spec(config)
    encode = evaluation.make_method(config, example, "posterior")
    decode = posteriors.decoder(config)
    # The seed chooses the examples once, so every step shows the same pairs.
    order = np.random.RandomState(config.seed % 2**32).permutation(len(source))
    examples = batching.read(source, order[: 2 * settings.pairs], config)
    inputs = datasets.pixels_of(example["image"]).unit(examples["image"])
    title = "Decoded on the way between the latents of two held-out examples"
    if config.model.get("conditions", ()):
        title += ", given the first one's conditions"
    shares = np.linspace(0.0, 1.0, settings.steps, dtype=np.float32)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        mean = np.asarray(jax.device_get(encode(state, examples)[0]))
        z = between(mean[::2], mean[1::2], shares)
        first = {name: array[::2].repeat(len(shares), axis=0) for name, array in examples.items()}
        images = decode(state, z.reshape(-1, z.shape[-1]), first)
        images = images.reshape(*z.shape[:2], *images.shape[1:])
        yield "heldout/interpolations", lambda: picture(inputs, images, shares, title)

    return evaluate


def between(start: np.ndarray, end: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns points on the straight lines from `start` to `end`.

    Args:
        start: [P, D].
        end: [P, D].
        shares: [T], each the share of the way from `start` to `end`.

    Returns:
        [P, T, D]; a share of 0 is exactly `start`, and a share of 1 is exactly `end`.
    """
    share = shares[:, None]
    return (1.0 - share) * start[:, None] + share * end[:, None]


def picture(inputs: np.ndarray, images: np.ndarray, shares: np.ndarray, title: str) -> np.ndarray:
    """Returns uint8 [H, W, C]: a row per pair, images [P, T, h, w, C] between inputs [2P, …]."""
    rows = np.concatenate([inputs[::2, None], images, inputs[1::2, None]], axis=1)
    grid = pictures.grid(
        pictures.enlarged(rows.reshape(-1, *rows.shape[2:])), columns=rows.shape[1]
    )
    columns = ("input", *(f"{share:.0%}" for share in shares), "input")
    title = pictures.caption(title, inputs.shape[-1])
    return pictures.to_uint8(pictures.framed(grid, columns=columns, title=title))
