"""A config made ready to be measured, and its bare step as something that can be run in rounds."""

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

ROUND_SECONDS = 0.5  # a round of steps takes so long, or one step where that is longer
# The stop request of a run that nobody stops.
NEVER: Any = types.SimpleNamespace(signal=None, grace_seconds=0.0, exit_code=0)


class Options(NamedTuple):
    """What was asked for; `config` is locked."""

    config: Any
    against: str  # FIELD=VALUE[,…] of a second step
    rounds: int  # in which everything is timed
    loop_steps: int  # of a round of the whole loop; 0: five seconds'
    json: Path | None
    profile: Path | None  # folder for a trace of a round of bare steps


class Bench(NamedTuple):
    """A config ready to be measured."""

    options: Options
    ready: setup.Setup  # with open data
    batch: Any  # the first, on the devices: what the step takes


def prepare(options: Options) -> Bench:
    """Checks the config, opens its data, and places the first batch.

    Raises:
        InputError: something in the config can't work.
    """
    ready = setup.prepare(options.config)
    train = ready.opened.train
    batch = next(batching.ahead(train, ready.config, ready.mesh, first_step=0))
    return Bench(options, ready, batch)


def first_state(bench: Bench) -> step.TrainState:
    """Returns the state of step 0 on the mesh."""
    return step.create_state(bench.ready.config, bench.ready.example, bench.ready.mesh)


def compiled_step(bench: Bench) -> Any:
    """Returns the compiled training step."""
    return planning.trace(bench.ready).lower().compile()


def no_stop(mesh: Mesh) -> jax.Array:
    """Returns the step's `stop` where no process was asked to."""
    return jax.device_put(np.zeros(mesh.size, np.float32), sharding.batch_sharded(mesh))


def stepper(bench: Bench, compiled: Any, *, num: int = 0) -> tuple[Callable[[], None], int]:
    """Returns a function that takes `num` bare steps, by default half a second's; and `num`."""
    state, stop = first_state(bench), no_stop(bench.ready.mesh)
    if not num:
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            state, metrics, _ = compiled(state, bench.batch, stop)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - began)
        num = max(1, math.ceil(ROUND_SECONDS / min(seconds)))

    def run() -> None:
        nonlocal state
        for _ in range(num):
            state, metrics, _ = compiled(state, bench.batch, stop)
        jax.block_until_ready(metrics)

    return run, num
