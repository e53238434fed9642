"""Held-out images beside their reconstructions, as one picture."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import data, networks, pictures, step


def make(config: Any, mesh: Mesh, source: data.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, picture), inputs above, reconstructions below."""
    del mesh
    reconstruct = step.make_method(config, data.example_spec(config), "reconstruct")
    batch = data.first_images(source, config, 16)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        outputs = np.asarray(jax.device_get(reconstruct(state, batch)))
        inputs = np.asarray(networks.unit_interval(jax.numpy.asarray(batch["image"])))
        rows = [np.concatenate([inputs[i : i + 8], outputs[i : i + 8]]) for i in (0, 8)]
        yield "heldout/reconstructions", pictures.grid(np.concatenate(rows), columns=8)

    return evaluate
