"""The training step: each device sums over its examples, and one all-reduce adds the sums up.

A model says what to add up (`Model.terms`). Gradients, sums of the terms and all other sums travel
in one flat float32 buffer. The objective sees means over the global batch, however that batch is
cut over devices, processes and accumulation steps. If bits must not depend on the mesh,
`mesh.reductions` adds in a fixed order instead. If the state is cut over the mesh, gradients are
scattered; `mesh.layouts` says how the state lies.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from pipeline import models
from pipeline.mesh import compiling, flat_buffers, layouts, reductions, sharding
from pipeline.training import coupling, examples, guard, optimizer, replicas
from pipeline.training.pixels import augmentations


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run needs to continue; `step` is also the position in the data.

    `stats` holds every variable of the model that is not an `nnx.Param`.
    """

    step: Array
    params: Any
    stats: Any
    opt_state: Any
    trend: Array  # [4] float32, moving sums of the loss; see `guard.first_trend`


def abstract_state(config: Any, example: Any) -> TrainState:
    """Returns the state's tree of shapes and dtypes; uses no device and starts no backend."""
    state = jax.eval_shape(lambda: _initial_state(config, example))
    return replicas.widened(state, config.replicas)


def create_state(config: Any, example: Any, mesh: Mesh) -> TrainState:
    """Returns the state of step 0, laid out as `layouts` says; its values are equal on any mesh."""
    if config.replicas > 1:  # each as a run by itself draws it, bit for bit
        own = [create_state(single, example, mesh) for single in replicas.alone(config)]
        return replicas.stacked(own, mesh)
    state = drawn_state(config, example, mesh)
    stats = models.first_stats(config, example, state.stats)
    if stats is state.stats:
        return state
    return dataclasses.replace(state, stats=sharding.everywhere(stats, mesh))


def drawn_state(config: Any, example: Any, mesh: Mesh) -> TrainState:
    """Returns `create_state` without what the model reads from files."""
    if not layouts.is_cut(mesh):
        whole = sharding.replicated(mesh)
        return jax.jit(lambda: _initial_state(config, example), out_shardings=whole)()

    # Every device draws all parameters and keeps its piece. A step needs as much memory anyway.
    def piece():
        return _initial_state(config, example, of=lambda tree: flat_buffers.own_piece(tree, mesh))

    specs = _specs(config, example, mesh)
    return jax.jit(jax.shard_map(piece, mesh=mesh, in_specs=(), out_specs=specs))()


def make_train_step(config: Any, example: Any, mesh: Mesh) -> Callable:
    """Returns `sharded_step` jitted, with the state donated; it can be compiled ahead of time."""
    return compiling.jit(sharded_step(config, example, mesh), mesh, donate_argnums=0)


def sharded_step(config: Any, example: Any, mesh: Mesh) -> Callable:
    """Returns the step, a pure function: (state, batch, stop) → (new state, metrics, verdict).

    `stop` is float32 [devices]: above 0 on the devices of a process with a stop request.
    `verdict`, float32 [2], is what every process must know at the same step. Its first number is
    above 0 if any process has a stop request; the second is the guard's judgement of this step.
    The batch is cut over all axes of the mesh; the state lies as `layouts` says. With replicas,
    metrics and verdict are as `replicas.vmapped` says.
    """
    config = models.settled(config)
    graphdef, _ = models.make(config, example)
    rate = optimizer.learning_rate(config.optimizer)
    axes, batch_size = mesh.axis_names, config.batch_size
    # Means come back whole on every device; gradients come back laid out as the parameters are.
    parts = {"parts": config.accumulation_steps, "shards": config.deterministic_shards}
    summed = reductions.make(mesh, **parts)
    squares = optimizer.parts.squares(config.optimizer)
    gradients_of = reductions.make_for_gradients(mesh, squares=squares, **parts)
    couples, (gathered, computed) = models.couples(config), coupling.make(mesh, **parts)

    def local_step(state: TrainState, batch: models.Batch, stop: Array, seed: Any = config.seed):
        # If the state is cut, this is the step's one all-gather; otherwise it does nothing.
        everywhere = layouts.gathered(state.params)

        def model(params):
            return nnx.merge(graphdef, params, state.stats, copy=True)

        def objective(own, coupled):
            return model(everywhere).objective(coupling.joined(own, coupled), step=state.step)

        def summed_terms(params, part):
            batch, keys = examples.scaled(part[0], example), part[1]
            shard = model(params)
            batch = augmentations.augmented(config.data.augment, batch, keys=keys)
            batch = models.augmented(shard, batch, keys=keys)
            terms, sums, shown = coupling.terms(shard, batch, keys=keys, step=state.step)
            # The sums feed statistics and metrics; they must add nothing to the gradient.
            return (examples.summed(terms, batch["mask"]), shown), lax.stop_gradient(sums)

        # Gradients must stay local until the one sum: else JAX adds each array up on its own.
        params = lax.pcast(everywhere, axes, to="varying")
        ours = examples.by_position(batch, seed, state.step, axes)

        def coupled_totals(params, whole):
            return coupling.summed(model(params), whole, step=state.step)

        # Coupled terms need what all examples show. From that, each device computes all of them.
        coupled = slopes_of_all = direct = None
        if couples:
            # Of this forward pass the compiler drops all but what the examples show.
            whole = gathered(lambda part: summed_terms(params, part)[0][1], ours)
            totals = computed(lambda whole: coupled_totals(everywhere, whole), whole)
            coupled = jax.tree.map(lambda total: total / batch_size, totals)

        # The gradient needs the objective's derivative by each mean. It depends on a mean only if
        # the objective is not linear in it; that mean must be known before the backward pass.
        slopes = jax.grad(objective, argnums=(0, 1))
        forward = lambda part: summed_terms(params, part)[0][0]  # noqa: E731
        read = lambda means: slopes(means, coupled)  # noqa: E731
        means = reductions.means_read(read, forward, ours, summed=summed, count=batch_size)
        weights, of_coupled = jax.tree.map(lambda w: w / batch_size, slopes(means, coupled))
        if couples:
            direct, slopes_of_all = computed(
                lambda given: coupling.slopes(coupled_totals, everywhere, *given),
                (whole, of_coupled),
            )

        def backward(part):
            (totals, _), pullback, sums = jax.vjp(
                lambda params: summed_terms(params, part), params, has_aux=True
            )
            position = part[0]["position"]
            slopes_of_shown = coupling.rows_at(slopes_of_all, position)
            gradients = pullback((lax.pcast(weights, axes, to="varying"), slopes_of_shown))[0]
            return coupling.added_once(gradients, direct, position), (totals, sums)

        # The stop requests travel with the sums, so they cost no message of their own.
        gradients, norms, (totals, sums), stopped = gradients_of(backward, ours, stop.sum())

        # Sums are equal on all devices from here on, so nothing below needs another exchange.
        means = jax.tree.map(lambda total: total / batch_size, totals)
        joined = coupling.joined(means, coupled)
        metrics = model(everywhere).metrics(joined, sums, step=state.step) | {
            "loss": objective(means, coupled),
            **norms,
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
        }
        norm = norms["grad_norm"]
        update = optimizer.make_for(gradients, norm, config.optimizer).update
        updates, opt_state = update(gradients, state.opt_state, state.params)
        new_params = jax.tree.map(jnp.add, state.params, updates)
        # Statistics change last, because this step's forward pass used the old ones throughout.
        stats = models.updated_stats(model(everywhere), state.stats, sums)
        # Judged on the device, so that no process has to read the loss to agree with the others.
        trend, judgement = guard.judge(state.trend, metrics["loss"], norm, config.guard)
        new_state = TrainState(state.step + 1, new_params, stats, opt_state, trend)
        return new_state, metrics, jnp.stack([stopped, judgement])

    specs = _specs(config, example, mesh)
    return jax.shard_map(
        local_step if config.replicas == 1 else replicas.vmapped(local_step, config),
        mesh=mesh,
        in_specs=(specs, P(axes), P(axes)),
        out_specs=(specs, P(), P()),
        check_vma=mesh.size > 1,  # the check expects a sum over the mesh, and one device takes none
    )


def _specs(config: Any, example: Any, mesh: Mesh) -> Any:
    if not layouts.is_cut(mesh):
        return P()  # for every leaf, so the state need not be traced
    return layouts.specs(layouts.laid_out(abstract_state(config, example), mesh))


def _initial_state(config: Any, example: Any, *, of: Callable = lambda tree: tree) -> TrainState:
    """Returns the state of step 0 with `of(params)` as its parameters."""
    config = models.settled(config)
    params, stats = models.initial(config, example)
    optimizer.parts.check_model(config.optimizer, params)
    params = of(params)
    opt_state = optimizer.make(config.optimizer).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, stats, opt_state, guard.first_trend())
