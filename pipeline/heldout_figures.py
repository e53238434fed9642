"""What a run evaluates while it trains: figures, warnings of them, and the best checkpoint's one.

The decision: a warning counts from the second evaluation in a row on; one alone is noise.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pipeline import data, errors, evaluation_step, named, step, tensorboard


def evaluate(
    evaluations: list[Callable], state: step.TrainState, writer: tensorboard.Writer, at: int
) -> dict[str, float]:
    """Runs every evaluation, writes what it yields, and returns the scalars of `heldout/`."""
    scalars = {}
    for evaluate in evaluations:
        for tag, value in evaluate(state):
            writer.write(tag, value, at)
            if isinstance(value, float):
                scalars[tag.removeprefix("heldout/")] = value
    return scalars


def lasting_warnings(modules: list[Any]) -> Callable[[dict[str, float]], list[str]]:
    """Returns held-out figures → each module's `warnings`, from the second in a row on."""
    before: dict[Any, list[str]] = {}

    def lasting(figures):
        nonlocal before
        found = {one: one.warnings(figures) for one in modules if hasattr(one, "warnings")}
        shown = [text for one, texts in found.items() if before.get(one) for text in texts]
        before = found
        return shown

    return lasting


def check_best_metric(config: Any, example: Any, mesh: Any, abstract: step.TrainState) -> None:
    """Raises an InputError where the best checkpoint is wanted by a figure that isn't made."""
    if not config.checkpoint.keep_best:
        return
    if "heldout" not in config.evals:
        raise errors.InputError(
            f"config.checkpoint.keep_best={config.checkpoint.keep_best} needs 'heldout' in "
            f"config.evals={tuple(config.evals)}; keep_best=0 switches it off"
        )
    position = jax.ShapeDtypeStruct((), np.uint32)
    batch = data.abstract_batch(config, mesh)
    summed = jax.eval_shape(
        evaluation_step.make_eval_step(config, example, mesh), abstract, batch, position
    )
    figures = jax.eval_shape(evaluation_step.make_summary(config, example), abstract, summed)
    scalars = [name for name, figure in figures.items() if not figure.ndim]
    named.check(config.checkpoint.best_metric, scalars, field="checkpoint.best_metric")
