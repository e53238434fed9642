"""Several seeds of one config, trained in one program (`config.replicas`).

A small VAE leaves an accelerator mostly idle. With R replicas, the state is that of R runs whose
seeds follow each other, and one step takes a step of each: `vmap` over parameters, statistics and
the keys of examples. All of them see the same examples, in the order of `data.seed`. So each is
the run that its seed would be by itself, if that has the same `config.data.seed`; last bits may
differ, because R small products become one large one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from pipeline.mesh import sharding
from pipeline.runtime import errors, ranges, reads, registry, run_config


def seeds(config: Any) -> range:
    """Returns the seeds of the replicas: `config.seed` and those that follow it."""
    return range(config.seed, config.seed + config.replicas)


def alone(config: Any) -> list[Any]:
    """Returns the config of each replica as a run by itself, which sees the same examples."""
    if config.replicas == 1:
        return [config]
    flat = run_config.flatten(config) | {"replicas": 1, "data.seed": run_config.data_seed(config)}
    return [run_config.nested(flat | {"seed": seed}) for seed in seeds(config)]


def check(config: Any) -> None:
    """Checks that replicas of this config can work; does nothing for a single run.

    Raises:
        InputError: they cannot.
    """
    if config.replicas == 1:
        return
    said = f"config.replicas={config.replicas}"
    if (most := seeds(config)[-1]) > ranges.MOST_NEW_SEED:
        raise errors.InputError(
            f"{said} from config.seed={config.seed} on reach the seed {most}: it must be at most "
            f"{ranges.MOST_NEW_SEED}"
        )
    if config.mesh.fsdp > 1:
        raise errors.InputError(
            f"{said} needs config.mesh.fsdp=1, not {config.mesh.fsdp}: each device holds all seeds"
        )
    if config.deterministic_shards:
        raise errors.InputError(
            f"{said} needs config.deterministic_shards=0, not {config.deterministic_shards}: the "
            "bits of replicas depend on the mesh"
        )
    if config.guard.action == "rollback":
        raise errors.InputError(
            f"{said} needs config.guard.action 'stop' or 'off', not 'rollback': it would take back "
            "the good seeds, too"
        )


def check_model(config: Any, example: Any) -> None:
    """Checks that the model draws only by what differs between replicas: its `rngs` and `keys`.

    A number in the model's structure is the same for all replicas, as they share one program.

    Raises:
        InputError: the model reads the seed by itself.
    """
    if config.replicas == 1:
        return
    seen: set[str] = set()
    model = registry.load("models", config.model.name, field="model.name").Model
    view = reads.View(run_config.settled(alone(config)[0], "cpu"), seen)
    nnx.eval_shape(lambda: model(view, example, rngs=nnx.Rngs(params=0)))
    if "seed" in seen:
        raise errors.InputError(
            f"config.replicas={config.replicas} needs a model that draws by `rngs` and `keys`: "
            f"config.model.name={config.model.name!r} reads config.seed, which all replicas would "
            "share; set replicas=1"
        )


def stacked(states: Sequence[Any], mesh: Mesh) -> Any:
    """Returns the state of all replicas: arrays [R, ...] on every device, and one `step`."""
    together = jax.tree.map(lambda *leaves: np.stack(jax.device_get(leaves)), *states)
    together = dataclasses.replace(together, step=np.asarray(states[0].step))
    return sharding.everywhere(together, mesh)


def widened(state: Any, num: int) -> Any:
    """Returns the shapes of the state of `num` replicas, from those of a single run."""
    if num == 1:
        return state
    wide = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num, *leaf.shape), leaf.dtype), state)
    return dataclasses.replace(wide, step=state.step)


@jax.jit
def one(state: Any, index: int) -> Any:
    """Returns the state of one replica, as a run by itself has it."""
    single = jax.tree.map(lambda leaf: leaf[index], dataclasses.replace(state, step=()))
    return dataclasses.replace(single, step=state.step)


def vmapped(local_step: Callable, config: Any) -> Callable:
    """Returns the step of all replicas: (state, batch, stop) → (new state, metrics, verdict).

    Args:
        local_step: (state, batch, stop, seed) → the same of a single run; see `step.sharded_step`.
        config: of the replicas.

    Returns:
        A function whose metrics are [R, ...] each, and whose verdict is [1 + R]: the stop request,
        and the guard's judgement of each replica. It adds over devices as often as `local_step`.
    """
    numbers = np.array([seed % 2**32 for seed in seeds(config)], np.uint32)

    def together(state: Any, batch: Any, stop: Array) -> Any:
        axes = dataclasses.replace(jax.tree.map(lambda leaf: 0, state), step=None)
        by_seed = lambda state, seed: local_step(state, batch, stop, seed)  # noqa: E731
        mapped = jax.vmap(by_seed, in_axes=(axes, 0), out_axes=(axes, 0, 0))
        state, metrics, verdicts = mapped(state, numbers)
        return state, metrics, jnp.append(verdicts[:1, 0], verdicts[:, 1])

    return together
