"""The rows of a part's shards, by number: pixels are mapped, JPEGs and PNGs are decoded in threads.

A row is compared with its checksum the first time that a process reads it.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from pipeline.datasets import _checked_rows, _image_decoder
from pipeline.datasets.shards import encoding, listing, manifest
from pipeline.runtime import cache, errors
from pipeline.runtime.storage import places

# Nothing is read ahead of a record: the next one lies elsewhere.
OPTIONS = "readahead_buffer_size:0,max_parallelism:0,index_storage_option:in_memory"
BUFFER_BYTES = 2**15
AT_ONCE = 8  # images that a thread decodes before it takes others

# Returns the path of a shard by its number; again: as a new copy, because the former is damaged.
Place = Callable[[int, bool], Path]


class Rows:
    """The rows of a part, for several threads at the same time."""

    def __init__(self, whole: manifest.Manifest, part: str, sums: np.ndarray, place: Place):
        """Opens nothing yet.

        Args:
            whole: the data set.
            part: its part.
            sums: [N] uint32, the checksums of all rows.
            place: where the shards are.
        """
        self._part, self._shape, self._sums, self._place = (
            whole.parts[part],
            whole.shape,
            sums,
            place,
        )
        self._encoding = whole.encoding
        side, _, channels = whole.shape
        self._to = _image_decoder.Format(side, side, channels)
        self._compared = np.zeros(len(sums), bool)
        self._open: dict[int, Any] = {}
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n] as [n, H, W, C] uint8.

        Raises:
            InputError: a shard is missing or damaged.
        """
        found = np.empty((len(rows), *self._shape), np.uint8)
        if self._encoding == "pixels":
            for number, chosen, inside in self._by_shard(rows):
                found[chosen] = self._pixels(number, inside)
            return found
        tasks = [
            (number, chosen[k : k + AT_ONCE], inside[k : k + AT_ONCE])
            for number, chosen, inside in self._by_shard(rows)
            for k in range(0, len(chosen), AT_ONCE)
        ]

        def task(one: tuple[int, np.ndarray, np.ndarray]) -> None:
            number, chosen, inside = one
            for place, content in zip(chosen, self._records(number, inside), strict=True):
                found[place] = encoding.decoded(content, self._to)

        for _ in _threads().map(task, tasks):
            pass
        return found

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields (number of a shard, places in `rows`, rows in the shard) for each shard."""
        numbers, inside = np.divmod(rows, self._part.per_shard)
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order], append=-1)) + 1
        for chosen in np.split(order, ends[:-1]):
            if chosen.size:
                yield int(numbers[chosen[0]]), chosen, inside[chosen]

    def _pixels(self, number: int, inside: np.ndarray) -> np.ndarray:
        found = self._shard(number)[inside]
        if self._fresh(number, inside).any():
            found = self._checked(number, inside, found, lambda shard: shard[inside])
        return found

    def _records(self, number: int, inside: np.ndarray) -> list[bytes]:
        numbers = inside.tolist()
        found = self._record_bytes(self._shard(number), numbers)
        if self._fresh(number, inside).any():
            found = self._checked(
                number, inside, found, lambda shard: self._record_bytes(shard, numbers)
            )
        return found

    def _record_bytes(self, reader: Any, numbers: list[int]) -> list[bytes]:
        try:
            return reader.read(numbers)
        except Exception:  # the library's own checksums: any error
            return [b""] * len(numbers)

    def _fresh(self, number: int, inside: np.ndarray) -> np.ndarray:
        return ~self._compared[number * self._part.per_shard + inside]

    def _checked(
        self, number: int, inside: np.ndarray, found: Any, again: Callable[[Any], Any]
    ) -> Any:
        """Compares rows with their checksums; reads a damaged shard again if it was a copy."""
        rows = number * self._part.per_shard + inside
        if not np.array_equal(_sums(found), self._sums[rows]):
            with self._lock:
                self._open[number] = self._opened(number, again=True)
            found = again(self._open[number])
            if not np.array_equal(_sums(found), self._sums[rows]):
                file = self._part.shards[number]
                raise manifest.altered(self._place(number, False).parent, file)
        self._compared[rows] = True
        return found

    def _shard(self, number: int) -> Any:
        shard = self._open.get(number)
        if shard is None:
            with self._lock:
                shard = self._open.get(number)
                if shard is None:
                    shard = self._open[number] = self._opened(number)
        return shard

    def _opened(self, number: int, *, again: bool = False) -> Any:
        """Opens a shard: an array [n, H, W, C], or a reader of records."""
        file, path = self._part.shards[number], self._place(number, again)
        num = min(self._part.per_shard, self._part.rows - number * self._part.per_shard)
        if places.is_bucket(path):
            self._check_store(path)
        if self._encoding == "pixels":
            if places.is_bucket(path):
                return listing.PixelsInBucket(path, (num, *self._shape), file.bytes)
            array = cache.open_array(path, (num, *self._shape))
            if array is None:
                raise manifest.altered(path.parent, file)
            return np.asarray(array)  # indexing it is faster than indexing a memory map
        reader = array_record_module.ArrayRecordReader(
            str(path), OPTIONS, file_reader_buffer_size=BUFFER_BYTES
        )
        # A file that cannot be opened raises no error.
        if not reader.ok() or reader.num_records() != num:
            raise manifest.altered(path.parent, file)
        return reader

    def _check_store(self, path: Path) -> None:
        if self._encoding != "pixels" and not str(path).startswith("gs://"):
            raise errors.InputError(
                f"config.data.copy=never: the shards of {path.parent} can be read in place only in "
                "gs://: use config.data.copy=auto"
            )


def check_there(folder: Path, whole: manifest.Manifest, sizes: dict[str, int]) -> None:
    """Raises an InputError if a shard is missing or has another size than it had.

    Args:
        folder: of the shards.
        whole: the data set.
        sizes: of the files that are there, by name.
    """
    for part in whole.parts.values():
        for file in part.shards:
            if file.file not in sizes:
                raise manifest.missing(folder, file)
            if sizes[file.file] != file.bytes:
                raise manifest.altered(folder, file)


def _sums(found: Any) -> np.ndarray:
    if isinstance(found, np.ndarray):
        return _checked_rows.checksums(found)
    return np.array([_checked_rows.checksum(np.frombuffer(one, np.uint8)) for one in found], "<u4")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Returns the threads that decode, for all data sets of the process."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
