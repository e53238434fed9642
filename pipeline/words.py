"""The words of the steps, read a few steps late: who was asked to stop, and what the guard found.

To wait for each step's word would cost small steps more than anything else that the loop does:
the host then starts each step when the device is at work on the one before. The words are read at
steps whose numbers all processes agree on, so that all of them leave, or go back, at one step.
"""

from typing import NamedTuple

import jax
import numpy as np

from pipeline import guard


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

    def add(self, at: int, word: jax.Array) -> None:
        """Notes the word of step `at`, see `step.make_train_step`; waits for nothing."""
        self._unread.append((at, word))

    def look(self, at: int, *, now: bool) -> Said:
        """Returns what was said up to the step before `at`, where it is one to look at.

        Args:
            at: the newest step.
            now: look whatever `at` is, and wait for its own word, too.
        """
        num = len(self._unread) if now else len(self._unread) - 1 if at % self._every == 0 else 0
        read, self._unread = self._unread[:num], self._unread[num:]
        words = [(number, *np.asarray(word).tolist()) for number, word in read]
        leaving = any(stopped > 0 for _, stopped, _ in words)
        bad = ((number, found) for number, _, found in words if found != guard.GOOD)
        return Said(leaving, *next(bad, (0, guard.GOOD)))

    def forget(self) -> None:
        """Drops what steps said whose state is gone."""
        self._unread.clear()
