"""A data set that stays on the devices: each step sends only the indices of its examples.

A batch takes examples from anywhere in the data set, so every device holds the whole set.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline.mesh import local_programs
from pipeline.runtime import errors

CHUNK = 4096  # examples read at a time


def place(
    read: Callable[[np.ndarray], dict[str, np.ndarray]], num_examples: int, mesh: Mesh
) -> Callable[[list[np.ndarray]], Sequence[dict[str, jax.Array]]]:
    """Reads the whole set onto every device.

    Args:
        read: maps int64 indices [n] to arrays [n, ...].
        num_examples: N; all indices are below it.
        mesh: the devices of all processes.

    Returns:
        A function from this process's rows of several global batches, int64 [n] each, to those
        batches, cut over the mesh. Every call must pass the same number of batches.

    Raises:
        InputError: the devices' memory cannot hold the set; no more than one example was read.
    """
    first = read(np.arange(1))
    check(num_examples * sum(array.nbytes for array in first.values()), mesh)
    whole = {name: np.empty((num_examples, *a.shape[1:]), a.dtype) for name, a in first.items()}
    for start in range(0, num_examples, CHUNK):
        rows = np.arange(start, min(start + CHUNK, num_examples))
        for name, array in read(rows).items():
            whole[name][rows] = array

    take = local_programs.program(_taken, mesh, whole)
    return lambda rows: take(np.stack(rows).astype(np.int32))


def _taken(rows: jax.Array, whole: dict[str, jax.Array]) -> list[dict[str, jax.Array]]:
    def batch(numbers: jax.Array) -> dict[str, jax.Array]:
        return jax.tree.map(lambda array: array.at[numbers].get(mode="promise_in_bounds"), whole)

    return [batch(numbers) for numbers in rows]


def check(needed: int, mesh: Mesh) -> None:
    """Raises an InputError if a device of this process has less than `needed` bytes left."""
    left = min(_bytes_left(device, len(mesh.local_devices)) for device in mesh.local_devices)
    if needed > left:
        raise errors.InputError(
            f"config.data.resident=True needs {needed / 1e9:.1f} GB on each of {mesh.size} devices,"
            f" and one has {left / 1e9:.1f} GB for it: set it to False, or train on fewer examples "
            "by --config.data.train_examples"
        )


def _bytes_left(device: Any, num_local: int) -> float:
    """Returns the bytes that a device can still hold; CPU devices share half of the memory."""
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 / num_local
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else float("inf")
