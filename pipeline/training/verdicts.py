"""What all processes must know about a step: stop requests, and the guard's judgement.

A stop request enters the step as a flag on each device (`StopFlags`), and the flags are added up
with all other sums. The step returns its verdict: a few numbers, equal on all processes.

Reading a verdict makes the host wait for the device. For short steps that would cost more than all
other host work. So the host reads verdicts a few steps late (`Verdicts`), at steps that all
processes know beforehand. All of them then stop, or roll back, at the same step.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline.mesh import sharding
from pipeline.runtime import signals
from pipeline.training import guard


class StopFlags:
    """The `stop` argument of a step: two arrays, placed once, so that a call transfers nothing."""

    def __init__(self, mesh: Mesh, stop: signals.StopRequest):
        """Places both arrays, float32 [devices]."""
        rows = len(mesh.local_devices)
        self._flags = sharding.to_global(
            [np.full(rows, value, np.float32) for value in (0.0, 1.0)], mesh
        )
        self._stop = stop

    def __call__(self) -> jax.Array:
        """Returns the current flags: ones on this process's devices if it has a stop request."""
        return self._flags[self._stop.signal is not None]


class Verdict(NamedTuple):
    """The verdicts of several steps combined."""

    stopping: bool  # a process has a stop request
    bad_step: int  # the first step that the guard found bad; 0: none
    judgement: float  # the guard's judgement of that step
    replica: int = 0  # the first one of which this is the judgement


class Verdicts:
    """The verdicts that the host has not read yet."""

    def __init__(self, every_steps: int, replicas: int = 1):
        """Reads are due at the multiples of `every_steps`; a verdict judges each replica."""
        self._replicas = replicas
        self._every, self._unread = every_steps, list[tuple[int, jax.Array]]()
        self._last_step = 0

    def add(self, at: int, verdict: jax.Array) -> None:
        """Notes the verdict of step `at`, [1 + R], or those of n steps up to it, [n, 1 + R].

        `step.sharded_step` says what a verdict holds. This waits for nothing.
        """
        self._unread.append((at, verdict))

    def due(self, at: int) -> bool:
        """Says whether a read is due after step `at`, the newest."""
        # A dispatch may pass over a multiple, so `at` itself need not be one.
        return at // self._every > self._last_step // self._every

    def read(self, at: int, *, now: bool) -> Verdict:
        """Returns the combined verdict of all dispatches before the newest, if a read is due.

        The loop saves when it stops, and only judged steps may be saved. So after a stop request
        this reads the newest verdict, too.

        Args:
            at: the newest step.
            now: read at any `at`, and wait for the verdict of the newest step, too.
        """
        num = len(self._unread) if now else len(self._unread) - 1 if self.due(at) else 0
        self._last_step = at
        found = self._first(num)
        if found.stopping and not found.bad_step:
            found = self._first(len(self._unread))._replace(stopping=True)
        return found

    def _first(self, num: int) -> Verdict:
        """Reads and removes the first `num` verdicts, and returns them combined."""
        read, self._unread = self._unread[:num], self._unread[num:]
        # The newest first: the host then sleeps and wakes once, not once for each.
        arrays = [np.asarray(values) for _, values in reversed(read)]
        verdicts = []
        for (last, _), values in zip(read, reversed(arrays), strict=True):
            rows = values.reshape(-1, 1 + self._replicas).tolist()
            verdicts += [(last - len(rows) + n, *row) for n, row in enumerate(rows, 1)]
        stopping = any(stopped > 0 for _, stopped, *_ in verdicts)
        bad = (
            (number, found, replica)
            for number, _, *judged in verdicts
            for replica, found in enumerate(judged)
            if found != guard.GOOD
        )
        return Verdict(stopping, *next(bad, (0, guard.GOOD)))

    def forget(self) -> None:
        """Drops the verdicts of steps whose state is gone."""
        self._unread.clear()
