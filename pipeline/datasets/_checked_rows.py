"""Rows of a packed copy, each of which is compared with its checksum when it is first read.

To compare all rows when the copy is opened would read the whole file. So a process compares a row
(CRC-32) the first time that it reads it. A damaged row is read again from its origin, and repaired
in the copy.
"""

import contextlib
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.display import terminal
from pipeline.runtime import cache, errors

MANY_BYTES = 2**24
SUFFIX = ".sums"  # of the file beside a copy that has the checksums

# Reads rows [n] again from their origin; returns them as [n, ...] uint8.
Mend = Callable[[np.ndarray], np.ndarray]


class Rows:
    """The rows of a copy, for several threads at the same time."""

    def __init__(self, copy: Path, array: np.ndarray, sums: np.ndarray, notes: bytes, mend: Mend):
        """Keeps the array [N, ...] uint8, its checksums [N] uint32, and what else was noted."""
        self.sums, self.notes = sums, notes
        self._copy, self._array, self._mend = copy, array, mend
        self._plain = np.asarray(array)  # indexing it is faster than indexing a memory map
        self._number = copy.stat().st_ino
        self._compared = np.zeros(len(array), bool)
        self._mended: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Returns N."""
        return len(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""
        return self._array.shape

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n] as [n, ...] uint8.

        Raises:
            InputError: a row is damaged, and its origin has other content by now.
        """
        found = self._plain[rows]
        fresh = np.flatnonzero(~self._compared[rows])
        if fresh.size:
            new = found if fresh.size == len(rows) else found[fresh]
            damaged = self.sums[rows[fresh]] != checksums(new)
            if damaged.any():
                self._repair(np.unique(rows[fresh[damaged]]))
            self._compared[rows[fresh]] = True
        if self._mended:
            for i in np.flatnonzero(np.isin(rows, list(self._mended))):
                found[i] = self._mended[int(rows[i])]
        return found

    def _repair(self, rows: np.ndarray) -> None:
        """Reads damaged rows [n] again, keeps them in memory, and writes them into the copy."""
        with self._lock:
            rows = np.array([row for row in rows if row not in self._mended], np.intp)
            if not rows.size:
                return
            terminal.Terminal().warn(
                f"{len(rows)} examples in {self._copy} are damaged (such as row {rows[0]}): they "
                "are read again from their files, and repaired in this copy"
            )
            for row, content in zip(rows, self._mend(rows), strict=True):
                if checksum(content) != self.sums[row]:
                    raise errors.InputError(
                        f"{self._copy} is damaged, and the files that it was made of have changed: "
                        f"remove it, and start again"
                    )
                self._mended[int(row)] = np.ascontiguousarray(content)
            # Without permission to write, the rows in memory still serve this process.
            with contextlib.suppress(OSError):
                self._write(rows)

    def _write(self, rows: np.ndarray) -> None:
        descriptor = os.open(self._copy, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_ino != self._number:
                return  # another process has replaced the copy since
            first_byte = os.fstat(descriptor).st_size - self._array.nbytes
            for row in rows:
                content = self._mended[int(row)].tobytes()
                os.pwrite(descriptor, content, first_byte + int(row) * len(content))
        finally:
            os.close(descriptor)


def checksum(row: np.ndarray) -> int:
    """Returns the CRC-32 of a row."""
    return zlib.crc32(np.ascontiguousarray(row).data)


def checksums(rows: np.ndarray) -> np.ndarray:
    """Returns the CRC-32 of each row [N, ...], [N] uint32; threads share the work if it is much."""
    if rows.nbytes < MANY_BYTES:
        return np.array([zlib.crc32(row.data) for row in rows.reshape(len(rows), -1)], np.uint32)
    pieces = np.array_split(rows, -(-2 * rows.nbytes // MANY_BYTES))
    with ThreadPoolExecutor() as pool:  # zlib lets other threads run meanwhile
        return np.concatenate(list(pool.map(checksums, pieces)))


def opened(copy: Path, shape: tuple[int, ...], mend: Mend) -> Rows | None:
    """Opens a copy; returns None if it, or the file of its checksums, is missing or damaged."""
    array = cache.open_array(copy, shape)
    content = cache.read_digested(copy.with_suffix(SUFFIX))
    if array is None or content is None or len(content) < 4 * shape[0]:
        return None
    sums = np.frombuffer(content[: 4 * shape[0]], "<u4")
    return Rows(copy, array, sums, content[4 * shape[0] :], mend)


def write_sums(copy: Path, sums: np.ndarray, notes: bytes = b"") -> None:
    """Writes the checksums of a copy; call it before the copy gets its final name.

    Raises:
        OSError: as in `cache.writing`.
    """
    cache.write_digested(copy.with_suffix(SUFFIX), sums.astype("<u4").tobytes() + notes)


def remove(copy: Path) -> None:
    """Removes a copy and its checksums, if this is permitted."""
    for suffix in (copy.suffix, SUFFIX):
        with contextlib.suppress(OSError):
            copy.with_suffix(suffix).unlink()
