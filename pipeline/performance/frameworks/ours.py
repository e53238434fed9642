"""This pipeline's own step, as `pipeline.train` runs it, in one process or in several."""

from collections.abc import Sequence

import jax
import numpy as np

from pipeline.mesh import sharding
from pipeline.performance import hlo
from pipeline.performance.frameworks import Run, places
from pipeline.performance.frameworks.works import Work
from pipeline.runtime import allocator, cluster, flags
from pipeline.training import dispatch, step

JOIN_SECONDS = 120  # processes import JAX on the same cores before they meet


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` is ignored."""
    del options
    allocator.keep_freed()
    place = places.here()
    _join(place)
    mesh = sharding.make_mesh(work.config.mesh)
    # Without files: what a prior reads from them only decodes, which the step does not do.
    state = step.drawn_state(work.config, work.example, mesh)
    take_steps = dispatch.Dispatcher(work.config, work.example, mesh)
    arrays = take_steps.arrays(state)
    rows = work.batch() | {"mask": np.ones(work.config.batch_size, np.float32)}
    batch = sharding.to_global({name: place.own(rows[name]) for name in rows}, mesh)
    stop = sharding.to_global(place.own(np.zeros(mesh.size, np.float32)), mesh)

    def steps(num: int) -> None:
        nonlocal arrays
        for _ in range(num):
            arrays, metrics, _ = take_steps(arrays, [batch], stop)
        jax.block_until_ready((arrays, metrics))

    def all_reduces() -> tuple[int, ...]:
        text = take_steps.trace(arrays, batch, stop).lower().compile().as_text()
        return tuple(found.bytes for found in hlo.collectives(text))

    return Run(steps, f"jax {jax.__version__}", jax.default_backend(), all_reduces)


def _join(place: places.Place) -> None:
    """Joins the processes as `pipeline.train` does; if one is lost, the others end, too."""
    if place.processes > 1:
        address = f"{places.LOOPBACK}:{place.port}"
        found = (address, place.processes, place.process, JOIN_SECONDS)
        cluster.join(flags.Processes("auto", *found)).doing = "timing steps"
