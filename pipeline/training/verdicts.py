"""What all processes must know of a step: who was asked to stop, and what the guard found.

A request to stop enters the step as a flag of each device, added up with everything else
(`StopFlags`). What comes out, the step's word, is read a few steps late (`Words`): to wait for each
would cost small steps more than anything else that the loop does, for the host then starts each
step when the device is at work on the one before. The words are read at steps whose numbers all
processes agree on, so that all of them leave, or go back, at one step.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline.mesh import sharding
from pipeline.runtime import signals
from pipeline.training import guard


class Said(NamedTuple):
    """What some words said together."""

    leaving: bool  # a process was asked to stop
    bad_step: int  # the first that the guard found bad; 0: none
    judgement: float  # the guard's of that step


class Words:
    """Of the steps that were started and not looked at yet."""

    def __init__(self, every_steps: int):
        """Looks at every so many steps, by their numbers."""
        self._every, self._unread = every_steps, list[tuple[int, jax.Array]]()
        self._looked = 0

    def add(self, at: int, word: jax.Array) -> None:
        """Notes the word of step `at`, [2], or those of n steps up to it, [n, 2].

        What they say: see `step.sharded_step`. Waits for nothing.
        """
        self._unread.append((at, word))

    def look(self, at: int, *, now: bool) -> Said:
        """Returns what was said before the newest dispatch, where it is time to look.

        Args:
            at: the newest step.
            now: look whatever `at` is, and wait for its own word, too.
        """
        due = at // self._every > self._looked // self._every
        num = len(self._unread) if now else len(self._unread) - 1 if due else 0
        self._looked = at
        read, self._unread = self._unread[:num], self._unread[num:]
        words = []
        for last, said in read:
            rows = np.asarray(said).reshape(-1, 2).tolist()
            words += [(last - len(rows) + n, *row) for n, row in enumerate(rows, 1)]
        leaving = any(stopped > 0 for _, stopped, _ in words)
        bad = ((number, found) for number, _, found in words if found != guard.GOOD)
        return Said(leaving, *next(bad, (0, guard.GOOD)))

    def forget(self) -> None:
        """Drops what steps said whose state is gone."""
        self._unread.clear()


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
        """Returns the flags of now: ones on this process's devices once it was asked to stop."""
        return self._flags[self._stop.signal is not None]
