"""Images decoded from draws of the prior; the draws never change, so steps are comparable."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.display import pictures
from pipeline.mesh import sharding
from pipeline.training import evaluation, step


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, picture)."""
    del source
    sample = evaluation.make_method(config, datasets.example_spec(config), "sample")
    keys = jax.jit(
        lambda: jax.random.split(jax.random.key(config.seed), 32),
        out_shardings=sharding.replicated(mesh),
    )()

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        images = np.asarray(jax.device_get(sample(state, keys)))
        yield "heldout/samples", lambda: pictures.grid(pictures.enlarged(images), columns=8)

    return evaluate
