"""A function of many examples, computed with a fixed number of rows per device at a time.

Rounding depends on array shapes, and the last bit can decide between two close codes. So every
device always computes exactly `ROWS` rows, in a program without a collective; a short chunk repeats
its last row. The results are then bitwise the same for any number of examples, devices and
processes, and one program is compiled.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from pipeline.mesh import compiling, sharding

ROWS = 64  # of a device at a time


class Program:
    """A compiled function (held, rows) → results, whose trees all have rows [n, ...]."""

    def __init__(self, function: Callable[[Any, Any], Any], held: Any, devices: Sequence[Any]):
        """Places `held` whole on each of the devices, which belong to this process.

        Args:
            function: of (held, rows) for the rows of one device.
            held: a tree of arrays, such as parameters.
            devices: over which the rows are spread.
        """
        self._mesh = sharding.make_mesh({"data": -1}, devices=devices)
        self._held = jax.device_put(held, sharding.replicated(self._mesh))
        axes = P(self._mesh.axis_names)
        self._run = compiling.jit(
            jax.shard_map(
                function, mesh=self._mesh, in_specs=(P(), axes), out_specs=axes, check_vma=False
            ),
            self._mesh,
        )
        self.size = ROWS * self._mesh.size  # rows of a chunk

    def start(self, rows: Any) -> Any:
        """Returns the results of up to `size` rows, padded to `size`, still on the devices."""
        padded = jax.tree.map(self._padded, rows)
        return self._run(self._held, jax.device_put(padded, sharding.batch_sharded(self._mesh)))

    def __call__(self, rows: Any) -> Any:
        """Returns the results of any number of rows, NumPy arrays [N, ...]."""
        num, chunks, before = len(jax.tree.leaves(rows)[0]), [], None
        for first in range(0, num, self.size):
            part = jax.tree.map(lambda a, at=first: a[at : at + self.size], rows)
            started = self.start(part)
            # Results are fetched one chunk later, while the devices compute the next one.
            if before is not None:
                chunks.append(jax.device_get(before))
            before = started
        chunks.append(jax.device_get(before))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *chunks)

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        missing = self.size - len(rows)
        return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge")
