"""Which rows were compared with their checksums, and what happens to a shard that is damaged.

A row is compared the first time that a process reads it. If its shard is a copy, it is copied again
once; otherwise the error names the shard.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.datasets.shards import manifest

# Returns the path of a shard by its number; again: as a new copy, because the former is damaged.
Place = Callable[[int, bool], Path]


class Checks:
    """The checks of a part, for several threads at the same time."""

    def __init__(self, part: manifest.Part, sums: np.ndarray, place: Place):
        """Has compared nothing yet.

        Args:
            part: of the data set.
            sums: [N] uint32, the checksums of all rows.
            place: where the shards are.
        """
        self.part = part
        self._sums, self._place = sums, place
        self._compared = np.zeros(len(sums), bool)
        self._renewed: set[int] = set()
        self._lock = threading.RLock()  # what opens a shard again may find it damaged

    def path(self, number: int) -> Path:
        """Returns where a shard lies."""
        return self._place(number, False)

    def rows(self, number: int) -> int:
        """Returns the number of rows in a shard."""
        return min(self.part.per_shard, self.part.rows - number * self.part.per_shard)

    def damaged(self, rows: np.ndarray, sums: Callable[[np.ndarray], np.ndarray]) -> list[int]:
        """Returns the numbers of the shards in which rows [n] differ from their checksums.

        Args:
            rows: that were read just now.
            sums: returns the checksums of what was read, by places in `rows`. It is called only for
                rows that were never compared.
        """
        fresh = np.flatnonzero(~self._compared[rows])
        if not fresh.size:
            return []
        right = sums(fresh) == self._sums[rows[fresh]]
        self._compared[rows[fresh[right]]] = True
        return np.unique(rows[fresh[~right]] // self.part.per_shard).tolist()

    def renew(self, number: int, reopen: Callable[[int], None]) -> None:
        """Copies a damaged shard again, if it is a copy, and opens it again.

        Raises:
            InputError: it is no copy, or what it was copied from is damaged too.
        """
        with self._lock:
            if number not in self._renewed:
                self._renewed.add(number)
                self._place(number, True)
                reopen(number)

    def altered(self, number: int) -> Exception:
        """Returns the error that names a damaged shard."""
        return manifest.altered(self.path(number).parent, self.part.shards[number])
