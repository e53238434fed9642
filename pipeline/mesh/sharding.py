"""The device mesh, and where arrays lie on it: batches cut over every axis.

State lies whole on all devices, or is cut over the axis `fsdp` (see `layouts`). That axis is the
inner one, so that its devices are neighbours. Devices are ordered by process, so that a process
holds a contiguous run of rows of every global batch. The data's order relies on that; sums over all
devices do not depend on it.
"""

import collections
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pipeline.runtime import backends, errors

FSDP = "fsdp"  # fully sharded data parallelism: the state is cut over its devices
AXES = ("data", FSDP)


def make_mesh(shape: Mapping[str, int], *, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh that `config.mesh` describes.

    An axis of one device is left out, so that programs without `fsdp` do not depend on such an
    axis. On a single device, `data` remains.

    Args:
        shape: size of each axis; −1 takes the devices that remain, and a missing axis has 1.
        devices: the devices to use; None: all devices of all processes. To compile a program ahead
            of time, pass those of a topology description.

    Raises:
        InputError: the sizes of the axes do not multiply to the number of devices, or JAX starts
            none.
    """
    # By process: the order of the data relies on contiguous rows.
    devices = list(backends.devices() if devices is None else devices)
    devices.sort(key=lambda device: (device.process_index, device.id))
    sizes = {axis: shape.get(axis, 1) for axis in AXES}
    asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) == 1:
        rest = -math.prod(sizes.values())
        sizes[free[0]] = len(devices) // rest if rest > 0 else 0
    if min(sizes.values()) < 1 or math.prod(sizes.values()) != len(devices):
        raise errors.InputError(
            f"config.mesh ({asked}) does not fit {len(devices)} devices: the axes must multiply to "
            "that number; choose a --config.mesh.fsdp that divides it, and --config.mesh.data=-1 "
            "takes the rest"
        )
    axes = tuple(axis for axis, size in sizes.items() if size > 1) or AXES[:1]
    grid = np.asarray(devices, dtype=object).reshape([sizes[axis] for axis in axes])
    # Explicit axes, JAX's newer default, would reject plain indexing of replicated tables.
    return Mesh(grid, axes, axis_types=(AxisType.Auto,) * len(axes))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that lies whole on every device."""
    return NamedSharding(mesh, P())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that cuts the leading dimension over all devices of the mesh."""
    return NamedSharding(mesh, P(mesh.axis_names))


def to_global(rows: Any, mesh: Mesh) -> Any:
    """Returns the tree of this process's rows as global arrays, each cut over the mesh."""
    where = batch_sharded(mesh)
    if jax.process_count() == 1:
        return jax.device_put(rows, where)  # one call for the whole tree is faster
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(where, a), rows)


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """Returns the tree of arrays, equal on all processes, whole on every device of the mesh."""
    where = replicated(mesh)

    def placed(array):
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree.map(placed, tree)


def check_batch(
    batch_size: int,
    *,
    mesh: Mesh,
    accumulation_steps: int,
    deterministic_shards: int = 0,
    field: str = "batch_size",
) -> None:
    """Raises an InputError if the global batch, the config's `field`, cannot be cut evenly.

    Every device takes `batch_size / devices` examples per step, in `accumulation_steps` equal
    parts. With `deterministic_shards` it takes its share of those shards instead.
    """
    errors.check_range(f"config.{field}", batch_size, 1)
    errors.check_range("config.accumulation_steps", accumulation_steps, 1)
    if deterministic_shards:
        _check_shards(deterministic_shards, mesh, accumulation_steps)
        parts, cut = deterministic_shards, "config.deterministic_shards"
    else:
        parts = mesh.size * accumulation_steps
        cut = f"{mesh.size} devices × {accumulation_steps} accumulation steps"
    if batch_size % parts:
        raise errors.InputError(
            f"config.{field}={batch_size} is not divisible by {cut} = {parts}: use "
            f"{_nearest(batch_size, parts)}"
        )


def _check_shards(shards: int, mesh: Mesh, accumulation_steps: int) -> None:
    errors.check_not_negative("config.deterministic_shards", shards, hint="; 0 switches them off")
    given = f"config.deterministic_shards={shards}"
    if accumulation_steps > 1:
        raise errors.InputError(
            f"{given} and config.accumulation_steps={accumulation_steps} don't go together: a "
            "device computes its shards one by one as it is; set accumulation_steps=1"
        )
    if FSDP in mesh.axis_names:
        raise errors.InputError(
            f"{given} and config.mesh.fsdp={mesh.shape[FSDP]} don't go together: gradients that "
            "are scattered are not added in one order; set mesh.fsdp=1"
        )
    if shards % mesh.size:
        raise errors.InputError(
            f"{given} is not divisible by {mesh.size} devices: use {_nearest(shards, mesh.size)} "
            "or other devices"
        )
    # A CPU's matrix products depend on the size of the thread pool. That is NPROC if set, else the
    # number of cores, and at least the number of the process's devices.
    if mesh.devices.flat[0].platform == "cpu":
        threads = os.environ.get("NPROC", "")
        needed = max(collections.Counter(d.process_index for d in mesh.devices.flat).values())
        if not threads.isdecimal() or int(threads) < needed:
            raise errors.InputError(
                f"{given} on CPUs needs NPROC, the number of threads, which last bits depend on: "
                f"it is {threads or 'not set'}; set it to the number of cores, at least to the "
                f"most devices that a process will ever have, {needed} or more, alike at every "
                "start"
            )


def _nearest(number: int, divisor: int) -> str:
    """Returns a text with the multiples of `divisor` next to `number`."""
    below = number // divisor * divisor
    return f"{below} or {below + divisor}" if below else f"{divisor}"
