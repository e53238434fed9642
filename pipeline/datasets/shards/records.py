"""Shards of JPEGs or PNGs: ArrayRecord files, whose records are decoded in threads."""

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from array_record.python import array_record_module

from pipeline.datasets import _checked_rows
from pipeline.datasets.shards import checks, encoding
from pipeline.runtime import errors
from pipeline.runtime.storage import places

# Nothing is read ahead of a record: the next one lies elsewhere.
OPTIONS = "readahead_buffer_size:0,max_parallelism:0,index_storage_option:in_memory"
BUFFER_BYTES = 2**15
AT_ONCE = 8  # images that a thread decodes before it takes others


class Records:
    """The rows of a part, [N, H, W, C] uint8, for several threads at the same time."""

    def __init__(self, check: checks.Checks, shape: tuple[int, int, int]):
        """Opens nothing yet; `shape` is [H, W, C]."""
        self._check, self._shape = check, shape
        self._to = encoding.stored(shape)
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n] as [n, H, W, C] uint8.

        Raises:
            InputError: a shard is missing or damaged.
        """
        found = np.empty((len(rows), *self._shape), np.uint8)

        def task(chosen: np.ndarray) -> None:
            contents = self._contents(rows[chosen])
            for place, content in zip(chosen, contents, strict=True):
                found[place] = encoding.decoded(content, self._to)

        for _ in _threads().map(task, self._tasks(rows)):
            pass
        return found

    def _tasks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields places in `rows`, a few of one shard each."""
        numbers = rows // self._check.part.per_shard
        order = np.argsort(numbers, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            yield from (chosen[k : k + AT_ONCE] for k in range(0, len(chosen), AT_ONCE))

    def _contents(self, rows: np.ndarray) -> list[bytes]:
        """Returns records [n] of one shard."""
        number = int(rows[0]) // self._check.part.per_shard
        inside = (rows - number * self._check.part.per_shard).tolist()
        for _ in range(2):
            found = self._records(number, inside)
            if not self._check.damaged(rows, functools.partial(_sums, found)):
                return found
            self._check.renew(number, self._open)
        raise self._check.altered(number)

    def _records(self, number: int, inside: list[int]) -> list[bytes]:
        if number not in self._readers:
            with self._lock:
                if number not in self._readers:
                    self._open(number)
        try:
            return self._readers[number].read(inside)
        except Exception:  # any kind: the library has checksums of its own
            return [b""] * len(inside)

    def _open(self, number: int) -> None:
        path = self._check.path(number)
        if places.is_bucket(path) and not str(path).startswith("gs://"):
            raise errors.InputError(
                f"config.data.copy=never: the shards of {path.parent} can be read in place only in "
                "gs://: use config.data.copy=auto"
            )
        for _ in range(2):
            reader = array_record_module.ArrayRecordReader(
                str(path), OPTIONS, file_reader_buffer_size=BUFFER_BYTES
            )
            # A file that is missing or damaged raises no error.
            if reader.ok() and reader.num_records() == self._check.rows(number):
                self._readers[number] = reader
                return
            self._check.renew(number, lambda number: None)
        raise self._check.altered(number)


def _sums(contents: list[bytes], at: np.ndarray) -> np.ndarray:
    chosen = [np.frombuffer(contents[k], np.uint8) for k in at]
    return np.array([_checked_rows.checksum(content) for content in chosen], "<u4")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Returns the threads that decode, for all data sets of the process."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
