"""How a request to stop enters the step: a flag of each device, added up with everything else."""

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import distributed, sharding


class StopFlags:
    """The `stop` argument of a step: two arrays made once, so that asking costs no transfer."""

    def __init__(self, mesh: Mesh, stop: distributed.StopRequest):
        """Places both arrays, float32 [devices]."""
        rows = len(mesh.local_devices)
        self._flags = sharding.to_global(
            [np.full(rows, value, np.float32) for value in (0.0, 1.0)], mesh
        )
        self._stop = stop

    def __call__(self) -> jax.Array:
        """Returns the flags of now: ones on this process's devices once it was asked to stop."""
        return self._flags[self._stop.signal is not None]
