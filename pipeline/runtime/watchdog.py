"""A watchdog: a process that makes no progress prints its stacks, and all end to be run again."""

import contextlib
import faulthandler
import os
import tempfile
import threading
import time
from typing import Self

from pipeline.runtime import errors, exit_codes, peers


class Watchdog:
    """Ends all processes if `mark` is not called for too long; starts at the first timed mark."""

    def __init__(self, seconds: float, others: peers.Peers):
        """Starts the watching thread.

        Args:
            seconds: the longest time between two marks; 0 only tells the others what is done.
            others: the other processes.
        """
        self._seconds, self._others = seconds, others
        self._limit = seconds
        self._marked: float | None = None
        self._closed = threading.Event()
        if seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def mark(self, doing: str, *, waiting: bool = False, timed: bool = True) -> None:
        """Notes that there was progress, and what comes next.

        Args:
            doing: what comes next; the other processes learn it, and the error line names it.
            waiting: whether it waits for all other processes. The limit is then twice as long, so
                that the process that they wait for exceeds its limit first and is named.
            timed: False if it has no time limit, such as a compilation.
        """
        self._limit = self._seconds * (2 if waiting else 1)
        self._others.doing, self._marked = doing, time.monotonic() if timed else None

    def __enter__(self) -> Self:
        """Returns the watchdog itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops watching."""
        self._closed.set()

    def _watch(self) -> None:
        tick = min(1.0, self._seconds / 4)
        marked, still, looked = self._marked, 0.0, time.monotonic()
        while not self._closed.wait(tick):
            now = time.monotonic()
            # A process that was stopped (Ctrl-Z, `scontrol suspend`) wakes up late. It made no
            # progress because it could not run, so only a tick of that time counts.
            passed, looked = min(now - looked, 2 * tick), now
            still = still + passed if marked == self._marked else 0.0
            marked = self._marked
            if marked is None or still < self._limit:
                continue
            reason = (
                f"no progress for {still:.0f} s (config.watchdog_seconds={self._seconds:g}); "
                "the stacks of its threads are in its output"
            )
            errors.say(f"error: {self._others} made {reason}:\n{_stacks()}")
            self._others.fail(reason, exit_codes.RETRY)
            os._exit(exit_codes.RETRY)


def _stacks() -> str:
    """Returns the stacks of all threads; stderr itself might hold up whoever writes to it."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read().rstrip()
    return "(the disk has no room for the stacks)"
