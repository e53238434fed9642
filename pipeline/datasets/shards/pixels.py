"""Shards of pixels: npy files, which are mapped; of those in a bucket, single rows are fetched."""

import functools
import threading
from typing import Any

import numpy as np

from pipeline.datasets import _checked_rows
from pipeline.datasets.shards import checks
from pipeline.runtime import cache
from pipeline.runtime.storage import places


class Pixels:
    """The rows of a part, [N, H, W, C] uint8, for several threads at the same time."""

    def __init__(self, check: checks.Checks, shape: tuple[int, ...]):
        """Opens nothing yet; `shape` is [H, W, C]."""
        self._check, self._shape = check, shape
        self._shards: _Mapped | _InBucket | None = None
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n] as [n, H, W, C] uint8.

        Raises:
            InputError: a shard is missing or damaged.
        """
        shards = self._opened()
        for _ in range(2):
            found = shards.read(rows).reshape(-1, *self._shape)
            damaged = self._check.damaged(rows, functools.partial(_sums, found))
            if not damaged:
                return found
            for number in damaged:
                self._check.renew(number, shards.open)
        raise self._check.altered(damaged[0])

    def _opened(self) -> "_Mapped | _InBucket":
        if self._shards is None:
            with self._lock:
                if self._shards is None:
                    kind = _InBucket if places.is_bucket(self._check.path(0)) else _Mapped
                    self._shards = kind(self._check, self._shape)
        return self._shards


def _sums(found: np.ndarray, at: np.ndarray) -> np.ndarray:
    return _checked_rows.checksums(found[at])


class _Mapped:
    """Shards in a file system.

    Reading rows of many files costs a gather for each file, and then a copy that puts them in
    order. So all maps are seen as one array, which begins at the first one in memory, and whose row
    i begins at byte i. Only rows inside of a map are read of it.
    """

    def __init__(self, check: checks.Checks, shape: tuple[int, ...]):
        self._check, self._shape = check, shape
        self._maps: dict[int, np.ndarray] = {}
        num = len(check.part.shards)
        for number in range(num):
            self._map(number)
        self._see()

    def open(self, number: int) -> None:
        """Maps a shard again."""
        self._map(number)
        self._see()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n] as [n, bytes of an image] uint8."""
        span, starts = self._seen
        numbers, inside = np.divmod(rows, self._check.part.per_shard)
        return span[starts[numbers] + inside * span.shape[1]]

    def _map(self, number: int) -> None:
        shape = (self._check.rows(number), *self._shape)
        array = cache.open_array(self._check.path(number), shape)
        if array is None:
            self._check.renew(number, lambda number: None)
            array = cache.open_array(self._check.path(number), shape)
        if array is None:
            raise self._check.altered(number)
        self._maps[number] = np.asarray(array)

    def _see(self) -> None:
        maps = [self._maps[number] for number in range(len(self._maps))]
        starts = np.array([array.ctypes.data for array in maps], np.int64)
        ends = starts + [array.nbytes for array in maps]
        first, size = maps[int(starts.argmin())], maps[0][0].size
        span = np.lib.stride_tricks.as_strided(
            first.reshape(-1), (int(ends.max() - starts.min()) - size + 1, size), (1, 1),
            writeable=False,
        )  # fmt: skip
        # The maps are kept, because the span keeps only the first one alive.
        self._seen = span, starts - starts.min()


class _InBucket:
    """Shards in a bucket; each row takes a request."""

    def __init__(self, check: checks.Checks, shape: tuple[int, ...]):
        self._check, self._row = check, int(np.prod(shape))

    def open(self, number: int) -> None:
        """Does nothing: there is no copy."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n] as [n, bytes of an image] uint8."""
        from pipeline.runtime.storage import requests

        paths, starts = [], []
        for row in rows.tolist():
            number, inside = divmod(row, self._check.part.per_shard)
            end = self._check.part.shards[number].bytes
            paths.append(str(self._check.path(number)))
            starts.append(end - (self._check.rows(number) - inside) * self._row)
        path: Any = self._check.path(0)
        with requests.asking(path.parent):
            found = path.store.cat_ranges(paths, starts, [start + self._row for start in starts])
        return np.frombuffer(b"".join(found), np.uint8).reshape(len(rows), self._row)
