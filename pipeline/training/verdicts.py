"""What all processes must know of a step: who was asked to stop, and what the guard found.

A request to stop enters the step as a flag of each device (`StopFlags`), and is added up with
everything else. The step returns its verdict, two numbers that are equal on all processes.

Reading a verdict makes the host wait for the device. For short steps that would cost more than all
other work of the host. So verdicts are read a few steps late (`Verdicts`), at steps whose numbers
all processes know: they all stop, or go back, at the same step.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline.mesh import sharding
from pipeline.runtime import signals
from pipeline.training import guard


class StopFlags:
    """The `stop` argument of a step: two arrays made once, so that asking costs no transfer."""

    def __init__(self, mesh: Mesh, stop: signals.StopRequest):
        """Places both arrays, float32 [devices]."""
        rows = len(mesh.local_devices)
        self._flags = sharding.to_global(
            [np.full(rows, value, np.float32) for value in (0.0, 1.0)], mesh
        )
        self._stop = stop

    def __call__(self) -> jax.Array:
        """Returns the current flags: ones on this process's devices after it was asked to stop."""
        return self._flags[self._stop.signal is not None]


class Verdict(NamedTuple):
    """What the verdicts of some steps say together."""

    stopping: bool  # a process was asked to stop
    bad_step: int  # the first that the guard found bad; 0: none
    judgement: float  # the guard's of that step


class Verdicts:
    """The verdicts that were not read yet."""

    def __init__(self, every_steps: int):
        """Reads at every so many steps, by their numbers."""
        self._every, self._unread = every_steps, list[tuple[int, jax.Array]]()
        self._last_step = 0

    def add(self, at: int, verdict: jax.Array) -> None:
        """Notes the verdict of step `at`, [2], or those of n steps up to it, [n, 2].

        `step.sharded_step` says what they hold. Waits for nothing.
        """
        self._unread.append((at, verdict))

    def read(self, at: int, *, now: bool) -> Verdict:
        """Returns the verdict of all dispatches before the newest, if it is time to read.

        A stop is followed by a save, and no step is saved that was not judged: so a stop makes the
        rest be read, too.

        Args:
            at: the newest step.
            now: read whatever `at` is, and wait for the verdict of the newest step, too.
        """
        due = at // self._every > self._last_step // self._every
        num = len(self._unread) if now else len(self._unread) - 1 if due else 0
        self._last_step = at
        found = self._first(num)
        if found.stopping and not found.bad_step:
            found = self._first(len(self._unread))._replace(stopping=True)
        return found

    def _first(self, num: int) -> Verdict:
        """Reads the first `num` that are left, and returns what they say together."""
        read, self._unread = self._unread[:num], self._unread[num:]
        verdicts = []
        for last, values in read:
            rows = np.asarray(values).reshape(-1, 2).tolist()
            verdicts += [(last - len(rows) + n, *row) for n, row in enumerate(rows, 1)]
        stopping = any(stopped > 0 for _, stopped, _ in verdicts)
        bad = ((number, found) for number, _, found in verdicts if found != guard.GOOD)
        return Verdict(stopping, *next(bad, (0, guard.GOOD)))

    def forget(self) -> None:
        """Drops the verdicts of steps whose state is gone."""
        self._unread.clear()
