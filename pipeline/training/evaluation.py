"""Evaluation of a state: sums over held-out examples, metrics, and the model's methods.

If the optimizer averages the parameters, everything here uses the averages. It gets them whole on
every device, however the state lies on the mesh.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from pipeline import models
from pipeline.display import pictures, tensorboard
from pipeline.mesh import compiling, layouts, reductions
from pipeline.nn import streams
from pipeline.nn.metrics import Metrics
from pipeline.runtime import errors, registry
from pipeline.training import batching, coupling, examples, guard, optimizer, step
from pipeline.training.saving import ranking

FIRST = "pipeline.evals.heldout"


def make_eval_step(
    config: Any, example: Any, mesh: Mesh, *, terms: Callable | None = None
) -> Callable:
    """Returns the jitted (state, batch, first position) → sums over the batch's true examples.

    The sums are (terms, sums, number of examples). Add them over batches for `make_summary`.

    Args:
        config: of the run.
        example: abstract example of the data set.
        mesh: the devices over which a batch is cut.
        terms: is summed instead of `Model.terms`; takes the model first, then the same arguments.
    """
    (graphdef, _), axes = models.make(config, example), mesh.axis_names
    parts = {"parts": 1, "shards": config.deterministic_shards}
    summed, (gathered, computed) = reductions.make(mesh, **parts), coupling.make(mesh, **parts)
    couples, score = terms is None and models.couples(config), terms or coupling.terms

    def local_step(state: step.TrainState, batch: models.Batch, first: Array):
        model = _model(graphdef, state)

        def scored(part):
            batch, keys = examples.scaled(part[0], example), part[1]
            values, sums, *shown = score(model, batch, keys=keys, step=state.step)
            return (examples.summed(values, batch["mask"]), sums, batch["mask"].sum()), shown

        ours = examples.by_position(batch, config.seed, streams.EVALUATION, axes, first=first)
        own, sums, count = summed(lambda part: scored(part)[0], ours)[0]
        if couples:
            whole = gathered(lambda part: scored(part)[1][0], ours)
            own = own, computed(lambda whole: coupling.summed(model, whole, step=state.step), whole)
        return own, sums, count

    sharded = jax.shard_map(
        local_step, mesh=mesh, in_specs=(P(), P(axes), P()), out_specs=P(), check_vma=False
    )

    def eval_step(state: step.TrainState, batch: models.Batch, first: Array):
        return sharded(_evaluated(state), batch, first)

    return compiling.jit(eval_step, mesh)


def make_summary(config: Any, example: Any) -> Callable[[step.TrainState, Any], Metrics]:
    """Returns the jitted (state, summed eval steps) → the model's metrics and `loss`."""
    graphdef, _ = models.make(config, example)

    def summary(state, summed):
        totals, sums, count = summed
        means = jax.tree.map(lambda total: total / count, totals)
        model = _model(graphdef, _evaluated(state))
        metrics = model.metrics(means, sums, step=state.step)
        return metrics | {"loss": model.objective(means, step=state.step)}

    return jax.jit(summary)


def make_method(config: Any, example: Any, name: str) -> Callable:
    """Returns the jitted (state, *arguments) → `Model.<name>(*arguments)`."""
    return compiling.jit(method(config, example, name))


def method(config: Any, example: Any, name: str) -> Callable:
    """Returns (state, *arguments) → `Model.<name>(*arguments)`, for use in other programs."""
    graphdef, _ = models.make(config, example)

    def call(state: step.TrainState, *arguments: Any):
        given = examples.arguments(name, arguments, example)
        return getattr(_model(graphdef, _evaluated(state)), name)(*given)

    return call


def _evaluated(state: step.TrainState) -> step.TrainState:
    """Returns the state with whole, possibly averaged parameters, and no optimizer state."""
    params = optimizer.evaluation_params(state.params, state.opt_state)
    return dataclasses.replace(state, params=layouts.whole(params), opt_state=())


def _model(graphdef: nnx.GraphDef, state: step.TrainState) -> Any:
    return nnx.merge(graphdef, state.params, state.stats, copy=True)


class NotFinite(FloatingPointError):
    """A held-out figure is not finite; the text names it and its step."""


class Evaluations:
    """The evaluations of a run while it trains, and the warnings that persist."""

    def __init__(self, ready: Any):
        """Makes the evaluations; `ready` is a `setup.Setup` with open data.

        Raises:
            InputError: the model or the data lack what an evaluation needs.
        """
        config, heldout = ready.config, ready.opened.heldout
        # The model's own figures come first: if they are not finite, nothing else is computed.
        ordered = sorted(ready.evaluations, key=lambda one: one.__name__ != FIRST)
        self._evaluations = [module.make(config, ready.mesh, heldout) for module in ordered]
        variant = registry.load("models", config.model.name, field="model.name")
        self._warning = [m for m in (variant, *ready.evaluations) if hasattr(m, "warnings")]
        self._before: dict[Any, list[str]] = {}

    def __call__(
        self,
        state: step.TrainState,
        writer: tensorboard.Writer,
        at: int,
        *,
        warn: Callable[[str], None],
    ) -> dict[str, float]:
        """Runs every evaluation, writes what it yields, and returns the scalars of `heldout/`.

        A module that warns is heard from its second evaluation in a row: a single one is noise.

        Raises:
            NotFinite: a value is not finite; it is not written, and no further one is computed.
        """
        scalars = {}
        for evaluate in self._evaluations:
            for tag, value in _finite(evaluate(state), state, at):
                if callable(value):
                    value = partial(pictures.attempted, value, f"{tag} at step {at}", warn)
                writer.write(tag, value, at)
                if isinstance(value, float):
                    scalars[tag.removeprefix("heldout/")] = value
        found = {module: module.warnings(scalars) for module in self._warning}
        again = [text for m, texts in found.items() if self._before.get(m) for text in texts]
        for text in again:
            warn(text)
        if again:  # a tag has one value a step
            writer.write("heldout/warnings", "\n\n".join(again), at)
        self._before = found
        return scalars


def _finite(values: Iterable[tuple[str, Any]], state: step.TrainState, at: int) -> Iterator:
    """Yields the values of an evaluation, which all processes compute; see `NotFinite`."""
    try:
        for tag, value in values:
            known = isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f"
            if known and not np.isfinite(value).all():
                raise NotFinite(f"{tag} of step {at} is not finite")
            yield tag, value
    # Libraries that compute figures of their own refuse NaN with errors of their own.
    except (ValueError, ArithmeticError) as error:
        if isinstance(error, NotFinite) or guard.are_finite(state.params):
            raise
        raise NotFinite(f"the state of step {at} is not finite ({errors.reason(error)})") from error


def check_best_metric(config: Any, example: Any, mesh: Any, abstract: step.TrainState) -> None:
    """Raises an InputError if no evaluation makes the figure that selects the best checkpoint."""
    if not config.checkpoint.keep_best:
        return
    if "heldout" not in config.evals:
        raise errors.InputError(
            f"config.checkpoint.keep_best={config.checkpoint.keep_best} needs 'heldout' in "
            f"config.evals={tuple(config.evals)}; keep_best=0 switches it off"
        )
    # Tracing names the figures without a compilation, so the mistake shows within seconds.
    position = jax.ShapeDtypeStruct((), np.uint32)
    batch = batching.abstract_batch(config, mesh)
    summed = jax.eval_shape(make_eval_step(config, example, mesh), abstract, batch, position)
    figures = jax.eval_shape(make_summary(config, example), abstract, summed)
    scalars = [name for name, figure in figures.items() if not figure.ndim]
    registry.check(config.checkpoint.best_metric, scalars, field="checkpoint.best_metric")
    ranking.mode(config.checkpoint)
