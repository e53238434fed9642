"""This pipeline's own step, as `pipeline.train` runs it."""

from collections.abc import Sequence

import jax
import numpy as np

from pipeline.mesh import sharding
from pipeline.performance.frameworks import Run
from pipeline.performance.frameworks.works import Work
from pipeline.runtime import allocator
from pipeline.training import step


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` is ignored."""
    del options
    allocator.keep_freed()
    mesh = sharding.make_mesh(work.config.mesh)
    # Without files: what a prior reads from them only decodes, which the step does not do.
    state = step.drawn_state(work.config, work.example, mesh)
    mask = np.ones(work.config.batch_size, np.float32)
    batch = jax.device_put(work.batch() | {"mask": mask}, sharding.batch_sharded(mesh))
    stop = jax.device_put(np.zeros(mesh.size, np.float32), sharding.batch_sharded(mesh))
    train_step = step.make_train_step(work.config, work.example, mesh)

    def steps(num: int) -> None:
        nonlocal state
        for _ in range(num):
            state, metrics, _ = train_step(state, batch, stop)
        jax.block_until_ready((state, metrics))

    return Run(steps, f"jax {jax.__version__}", jax.default_backend())
