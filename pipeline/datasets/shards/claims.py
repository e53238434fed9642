"""Who makes which shard, of all processes on all hosts: the first that creates a file.

A claim is a file that is created only if it is absent. The claim of a process that has ended is
followed by a second claim of the same shard, then by a third. To make a shard twice does no harm,
as it has the same bytes. So a claim needs no renewal, and no two clocks are compared.
"""

import contextlib
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.runtime import files
from pipeline.runtime.workdir import liveness

PATIENCE_SECONDS = 60.0  # at least, before another host's claim counts as left behind


class Claims:
    """The claims of one process, in one folder."""

    def __init__(self, folder: Path, machine: liveness.Machine | None = None):
        """Claims nothing yet."""
        self._folder, self._machine = folder, machine or liveness.Machine()
        self._identity = self._machine.identity()
        self._first_seen: dict[str, float] = {}
        self._taken = folder
        self._longest = 0.0  # seconds that this process needed for a shard
        self._began = 0.0

    def take(self, shard: str, names: Collection[str]) -> bool:
        """Claims a shard if nobody is making it; returns whether this process must make it.

        Args:
            shard: the name of its file.
            names: of the files in the folder, listed a moment ago.
        """
        turn = sum(name.startswith(f"{shard}.claim-") for name in names)
        if turn and not self._left_behind(f"{shard}.claim-{turn - 1}"):
            return False
        self._began = time.monotonic()
        self._taken = self._folder / f"{shard}.claim-{turn}"
        return files.create(self._taken, json.dumps(self._identity).encode())

    def release(self) -> None:
        """Gives up the claim that was taken last; its process may go on without it."""
        with contextlib.suppress(OSError):
            self._taken.unlink()

    def made(self) -> None:
        """Notes how long the shard took that was claimed last."""
        self._longest = max(self._longest, time.monotonic() - self._began)

    def _left_behind(self, name: str) -> bool:
        """Says whether a claim's process has ended, or needs much longer than this one would."""
        lives = self._machine.lives(self._note(name))
        if lives is not None:
            return not lives
        first = self._first_seen.setdefault(name, time.monotonic())
        return time.monotonic() - first > max(PATIENCE_SECONDS, 3 * self._longest)

    def _note(self, name: str) -> dict[str, Any]:
        try:
            note = json.loads((self._folder / name).read_bytes())
        except (OSError, ValueError):  # removed meanwhile, or written this very moment
            return {}
        return note if isinstance(note, dict) else {}
