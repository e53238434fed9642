"""Images decoded from draws of the prior; the draws never change, so steps are comparable."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.display import pictures
from pipeline.mesh import sharding
from pipeline.runtime import registry
from pipeline.training import evaluation, step

RANDOM_CODES = "Random codes, not a prior: codes of real images depend on each other"


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, picture)."""
    del source
    above = title(config)
    sample = evaluation.make_method(config, datasets.example_spec(config), "sample")
    keys = jax.jit(
        lambda: jax.random.split(jax.random.key(config.seed), 32),
        out_shardings=sharding.replicated(mesh),
    )()

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        images = np.asarray(jax.device_get(sample(state, keys)))
        yield "heldout/samples", lambda: picture(images, above)

    return evaluate


def title(config: Any) -> str:
    """Returns what stands above samples that come from no prior; "" if they do."""
    model = registry.load("models", config.model.name, field="model.name").Model
    return RANDOM_CODES if hasattr(model, "vectors") else ""


def picture(images: np.ndarray, above: str) -> np.ndarray:
    """Returns [H, W, 1 or 3] in [0, 1]: rows of eight images [N, h, w, C], below a text."""
    above = pictures.caption(above, images.shape[-1])
    grid = pictures.grid(pictures.enlarged(images), columns=8)
    return pictures.framed(grid, title=above) if above else grid
