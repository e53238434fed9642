"""What every section of the benchmark shares: a config that is ready, and its bare step."""

import math
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline.mesh import sharding
from pipeline.performance import planning
from pipeline.training import batching, setup, step

ROUND_SECONDS = 0.5  # the least time of a round, which has at least one step
# The stop request of a run that nobody stops.
NEVER: Any = types.SimpleNamespace(signal=None, grace_seconds=0.0, exit_code=0)


class Options(NamedTuple):
    """What the command line asks for; `config` is locked."""

    config: Any
    against: str  # FIELD=VALUE[,…] of a second step
    rounds: int  # how often each candidate is timed
    loop_steps: int  # steps in a round of the whole loop; 0: as many as five seconds hold
    json: Path | None
    profile: Path | None  # folder for a trace of one round of bare steps


class Bench(NamedTuple):
    """A config ready to be measured."""

    options: Options
    ready: setup.Setup  # its data is open
    batch: Any  # the first batch, on the devices in the form that the step takes


def prepare(options: Options) -> Bench:
    """Checks the config, opens its data, and puts the first batch on the devices.

    Raises:
        InputError: a value in the config cannot work.
    """
    ready = setup.prepare(options.config)
    train = ready.opened.train
    batch = next(batching.ahead(train, ready.config, ready.mesh, first_step=0))
    return Bench(options, ready, batch)


def first_state(bench: Bench) -> step.TrainState:
    """Returns the train state of step 0, laid out on the mesh."""
    return step.create_state(bench.ready.config, bench.ready.example, bench.ready.mesh)


def first_arrays(bench: Bench) -> list[jax.Array]:
    """Returns the arrays of `first_state`, which is what a compiled step takes."""
    return jax.tree.leaves(first_state(bench))


def compiled_step(bench: Bench) -> Any:
    """Returns the training step of `train`, compiled for these devices."""
    return planning.trace(bench.ready).lower().compile()


def no_stop(mesh: Mesh) -> jax.Array:
    """Returns the step's `stop` [devices] float32 when no process has a stop request: zeros."""
    return jax.device_put(np.zeros(mesh.size, np.float32), sharding.batch_sharded(mesh))


def stepper(bench: Bench, compiled: Any, *, num: int = 0) -> tuple[Callable[[], None], int]:
    """Returns a function that runs `num` bare steps and waits for the last, and `num` itself.

    Args:
        bench: the config whose first batch every step uses.
        compiled: the step, (arrays of the state, batch, stop) → (arrays, metrics, verdict).
        num: steps per call; 0: as many as take ROUND_SECONDS, and at least one.
    """
    state, stop = first_arrays(bench), no_stop(bench.ready.mesh)
    if not num:
        # The fastest of three steps sets the number: a slow first step must not make it too small.
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            state, metrics, _ = compiled(state, bench.batch, stop)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - began)
        num = max(1, math.ceil(ROUND_SECONDS / min(seconds)))

    # The step donates its state, so every call has to continue from the state of the call before.
    def run() -> None:
        nonlocal state
        for _ in range(num):
            state, metrics, _ = compiled(state, bench.batch, stop)
        jax.block_until_ready(metrics)

    return run, num
