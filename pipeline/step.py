"""The training step: each device sums over its examples, and one all-reduce adds everything up.

A model says what to add up (`Model.terms`), and this module adds it up once: gradients, sums of the
terms and every other sum travel in one flat float32 buffer. The objective sees means over the
global batch, however that is cut over devices, processes and accumulation steps. (Where bits must
not depend on the mesh, `reductions` adds in a fixed order instead.)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from pipeline import guard, named, optimizer, reductions, run_config, sharding
from pipeline.metrics import Metrics

Batch = dict[str, Array]
# The noise of evaluation comes from a stream of its own: no training step has this number.
EVALUATION = 2**32 - 1


class Model(Protocol):
    """What a file in `models/` defines. It is written for one shard of the batch.

    A model with statistics of its own also has `updated_stats(sums)`, which returns the new `stats`
    from the global sums. One that is trained on less than it is given also has
    `augment(batch, *, keys)`, which returns the batch as training sees it: evaluation skips it.
    One with a Gaussian posterior also has `posterior(batch)`, which returns its mean and
    log-variance, [B, D] each, and `nll(z, batch)`, which returns −log p(x|z) [B] in nats.
    """

    def terms(self, batch: Batch, *, keys: Array, step: Array) -> tuple[Any, Any]:
        """Returns (terms, sums): a NamedTuple of [B, ...] arrays, and sums over these examples.

        Args:
            batch: `image` [B, H, W, C] uint8, `mask` [B] (0 where an example is padding; the sums,
                not the terms, must heed it), `position` [B] int32 in the global batch (or, in
                evaluation, in the data set), and what else the data set gives.
            keys: [B], one PRNG key an example.
            step: int32 scalar.
        """

    def objective(self, means: Any, *, step: Array) -> Array:
        """Returns the scalar to minimise, from the terms' means over the global batch.

        Its gradient reaches the parameters through `means` alone. It need not be linear.
        """

    def metrics(self, means: Any, sums: Any, *, step: Array) -> Metrics:
        """Returns what to log, from global means and sums, in training and evaluation.

        A scalar [] becomes a curve, a vector [N] a histogram.
        """

    def reconstruct(self, batch: Batch) -> Array:
        """Returns images in [0, 1], [B, H, W, C]."""

    def sample(self, keys: Array) -> Array:
        """Returns an image in [0, 1] drawn from the model for each key, [B, H, W, C]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run needs to go on, with the data position, which is `step`.

    `stats` holds every variable of the model that is not an `nnx.Param`.
    """

    step: Array
    params: Any
    stats: Any
    opt_state: Any
    trend: Array  # of the loss, for `guard`


def make_model(config: Any, example: Any) -> tuple[nnx.GraphDef, Callable[[], tuple[Any, Any]]]:
    """Returns the model's structure, and a function that draws its first (params, stats).

    Raises:
        InputError: the config names an unknown model, or one of its values can't work.
    """
    module = named.load("models", config.model.name, field="model.name")
    config = run_config.settled(config, jax.default_backend())

    def build():
        key = jax.random.fold_in(jax.random.key(config.seed), EVALUATION - 1)
        return module.Model(config, example, rngs=nnx.Rngs(params=key))

    def init():
        _, params, stats = nnx.split(build(), nnx.Param, ...)
        return nnx.as_pure(params), nnx.as_pure(stats)

    graphdef = nnx.split(nnx.eval_shape(build), nnx.Param, ...)[0]
    return graphdef, init


def abstract_model(config: Any, example: Any) -> Any:
    """Returns the model without values: its methods and sizes can be asked for."""
    graphdef, init = make_model(config, example)
    return nnx.merge(graphdef, *jax.eval_shape(init))


def abstract_state(config: Any, example: Any) -> TrainState:
    """Returns the shapes and types of the state; touches no device."""
    return jax.eval_shape(lambda: _initial_state(config, example))


def create_state(config: Any, example: Any, mesh: Mesh) -> TrainState:
    """Returns the state of step 0, replicated over the mesh; the same on any mesh."""
    init = jax.jit(lambda: _initial_state(config, example), out_shardings=sharding.replicated(mesh))
    return init()


def make_train_step(config: Any, example: Any, mesh: Mesh) -> Callable:
    """Returns the jitted step: (state, batch, stop) → (new state, metrics, word).

    `stop` is float32 [devices]: above 0 where a process was asked to stop. `word` [2] is what every
    process must know at the same step: above 0 where one was asked, and the guard's judgement of
    this step. The state is donated. Pure: may be compiled ahead of time.
    """
    graphdef, _ = make_model(config, example)
    update = optimizer.make(config.optimizer).update
    rate = optimizer.learning_rate(config.optimizer)
    axes, batch_size = mesh.axis_names, config.batch_size
    summed = reductions.make(
        mesh, parts=config.accumulation_steps, shards=config.deterministic_shards
    )

    def local_step(state: TrainState, batch: Batch, stop: Array):
        def model(params):
            return nnx.merge(graphdef, params, state.stats, copy=True)

        def objective(means):
            return model(state.params).objective(means, step=state.step)

        def summed_terms(params, examples):
            batch, keys = examples
            shard = model(params)
            terms, sums = shard.terms(_augmented(shard, batch, keys), keys=keys, step=state.step)
            return _sum_examples(terms, batch["mask"]), lax.stop_gradient(sums)

        # Gradients stay local until the one sum: without this, each would be summed on its own.
        params = lax.pcast(state.params, axes, to="varying")
        examples = _by_position(batch, config.seed, state.step, axes)

        def forward(examples):
            return summed_terms(params, examples)[0]

        # Weight of each term in the gradient. Only an objective that isn't linear in a mean makes
        # it depend on that mean, which must then be known before the backward pass.
        shapes = jax.eval_shape(forward, examples)
        means = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
        needed = _inputs_read(jax.grad(objective), means)
        if any(needed):
            read = [index for index, is_read in enumerate(needed) if is_read]
            leaves, structure = jax.tree.flatten(means)
            few = lambda part: [jax.tree.leaves(forward(part))[i] for i in read]  # noqa: E731
            for index, total in zip(read, summed(few, examples)[0], strict=True):
                leaves[index] = total / batch_size
            means = jax.tree.unflatten(structure, leaves)
        weights = jax.tree.map(lambda w: w / batch_size, jax.grad(objective)(means))

        def backward(examples):
            totals, pullback, sums = jax.vjp(
                lambda params: summed_terms(params, examples), params, has_aux=True
            )
            return pullback(lax.pcast(weights, axes, to="varying"))[0], totals, sums

        (gradients, totals, sums), stopped = summed(backward, examples, stop.sum())

        means = jax.tree.map(lambda total: total / batch_size, totals)
        metrics = model(state.params).metrics(means, sums, step=state.step) | {
            "loss": objective(means),
            "grad_norm": jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients))),
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
        }
        updates, opt_state = update(gradients, state.opt_state, state.params)
        new_params = jax.tree.map(jnp.add, state.params, updates)
        # Statistics last: this step's forward pass used the old ones throughout.
        stats = _updated_stats(model(state.params), state.stats, sums)
        trend, judgement = guard.judge(
            state.trend, metrics["loss"], metrics["grad_norm"], config.guard
        )
        new_state = TrainState(state.step + 1, new_params, stats, opt_state, trend)
        return new_state, metrics, jnp.stack([stopped, judgement])

    sharded = jax.shard_map(
        local_step,
        mesh=mesh,
        in_specs=(P(), P(axes), P(axes)),
        out_specs=(P(), P(), P()),
    )
    return jax.jit(sharded, donate_argnums=0)


def make_eval_step(
    config: Any, example: Any, mesh: Mesh, *, terms: Callable | None = None
) -> Callable:
    """Returns the jitted (state, batch, first_position) → sums over the batch's true examples.

    The sums are a pytree, (terms, sums, number of examples), to be added over batches, and then
    given to `make_summary`'s function. They are exact: padding is masked. Here, in `make_summary`
    and in `make_method`, the averaged parameters are used where the optimizer keeps them.

    Args:
        config: of the run.
        example: abstract example of the data set.
        mesh: its devices.
        terms: what is summed in place of `Model.terms`, called as that is with the model before.
    """
    graphdef, _ = make_model(config, example)
    axes = mesh.axis_names
    summed = reductions.make(mesh, parts=1, shards=config.deterministic_shards)

    def local_step(state: TrainState, batch: Batch, first_position: Array):
        model = _evaluation_model(graphdef, state)

        def sums_of(examples):
            batch, keys = examples
            score = model.terms if terms is None else functools.partial(terms, model)
            values, sums = score(batch, keys=keys, step=state.step)
            return _sum_examples(values, batch["mask"]), sums, batch["mask"].sum()

        examples = _by_position(batch, config.seed, EVALUATION, axes, first=first_position)
        return summed(sums_of, examples)[0]

    sharded = jax.shard_map(
        local_step, mesh=mesh, in_specs=(P(), P(axes), P()), out_specs=P(), check_vma=False
    )
    return jax.jit(sharded)


def make_summary(config: Any, example: Any) -> Callable[[TrainState, Any], Metrics]:
    """Returns the jitted (state, summed eval steps) → the model's metrics and `loss`."""
    graphdef, _ = make_model(config, example)

    def summary(state, summed):
        totals, sums, count = summed
        means = jax.tree.map(lambda total: total / count, totals)
        model = _evaluation_model(graphdef, state)
        metrics = model.metrics(means, sums, step=state.step)
        return metrics | {"loss": model.objective(means, step=state.step)}

    return jax.jit(summary)


def make_method(config: Any, example: Any, name: str) -> Callable:
    """Returns the jitted (state, *arguments) → `Model.<name>(*arguments)`, as in evaluation."""
    graphdef, _ = make_model(config, example)

    def call(state: TrainState, *arguments: Any):
        return getattr(_evaluation_model(graphdef, state), name)(*arguments)

    return jax.jit(call)


def _evaluation_model(graphdef: nnx.GraphDef, state: TrainState) -> Any:
    params = optimizer.evaluation_params(state.params, state.opt_state)
    return nnx.merge(graphdef, params, state.stats, copy=True)


def _initial_state(config: Any, example: Any) -> TrainState:
    params, stats = make_model(config, example)[1]()
    opt_state = optimizer.make(config.optimizer).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, stats, opt_state, guard.first_trend())


def _by_position(
    batch: Batch, seed: int, step: Any, axes: Any, *, first: Any = 0
) -> tuple[Batch, Array]:
    """Adds each example's position in the global batch, and a key by it: the same on any mesh."""
    rows = batch["mask"].shape[0]
    position = jnp.int32(first) + lax.axis_index(axes) * rows + jnp.arange(rows)
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(position)
    return batch | {"position": position}, keys


def _sum_examples(terms: Any, mask: Array) -> Any:
    return jax.tree.map(lambda t: jnp.tensordot(mask, t.astype(jnp.float32), axes=1), terms)


def _inputs_read(function: Callable, *args: Any) -> list[bool]:
    """Says for each leaf of `args` whether `function`'s result can depend on it.

    Walks the traced program backwards from its results. An operation is taken to read all of its
    inputs, so an answer of False is certain.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    live = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in live for var in equation.outvars):
            live |= {id(var) for var in equation.invars}
    return [id(var) in live for var in jaxpr.invars]


def _augmented(model: Any, batch: Batch, keys: Array) -> Batch:
    return model.augment(batch, keys=keys) if hasattr(model, "augment") else batch


def _updated_stats(model: Any, stats: Any, sums: Any) -> Any:
    if not hasattr(model, "updated_stats"):
        return stats
    return model.updated_stats(sums)
