"""How the processes of a run agree: what one of them knows, or chooses, all of them learn.

Every function here must be called by all processes, in the same order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from orbax.checkpoint import multihost

from pipeline.mesh import sharding


def any_process(mesh: Mesh, value: bool) -> bool:
    """Returns on every process whether `value` is true on any of them; waits for all of them."""
    values = np.full(len(mesh.local_devices), value, np.float32)
    return float(_maximum(sharding.replicated(mesh))(sharding.to_global(values, mesh))) > 0


def wait_for_all(mesh: Mesh) -> None:
    """Returns when all processes have called it."""
    any_process(mesh, False)


def wait_patiently(what: str, *, seconds: float) -> None:
    """Returns when all processes have called it, for work that some do much sooner than others.

    A collective operation, as in `wait_for_all`, would give up after seconds or minutes.

    Args:
        what: names this meeting; each name is used once in a process.
        seconds: after which it gives up.
    """
    multihost.get_barrier_sync_fn()(key=what, timeout_ms=int(1000 * seconds))


def chosen_by_first(value: Any) -> np.ndarray:
    """Returns the value of process 0, an array or a number, on every process."""
    return np.asarray(multihost_utils.broadcast_one_to_all(value))


@functools.cache
def _maximum(where: NamedSharding) -> Any:
    return jax.jit(jnp.max, out_shardings=where)
