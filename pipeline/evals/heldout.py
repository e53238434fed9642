"""The model's metrics over held-out data, exact for every batch size and mesh."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.training import batching, evaluation, step


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, value) pairs, with one sample of z per example."""
    of_state = figures(config, mesh, source)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        for name, value in of_state(state).items():
            yield f"heldout/{name}", value if value.ndim else float(value)

    return evaluate


def figures(
    config: Any, mesh: Mesh, source: datasets.Source
) -> Callable[[step.TrainState], dict[str, np.ndarray]]:
    """Returns the function state → the model's metrics over held-out data.

    Each metric is [] or [N]. Sums over batches are divided only once, at the end, so a short last
    batch has the right weight.
    """
    example = datasets.example_spec(config)
    eval_step = evaluation.make_eval_step(config, example, mesh)
    summary = evaluation.make_summary(config, example)

    def of_state(state: step.TrainState) -> dict[str, np.ndarray]:
        summed = None
        for first, batch in batching.heldout_batches(source, config, mesh):
            sums = eval_step(state, batch, jnp.uint32(first))
            summed = sums if summed is None else jax.tree.map(jnp.add, summed, sums)
        return jax.device_get(summary(state, summed))

    return of_state
