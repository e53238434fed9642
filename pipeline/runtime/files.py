"""Files that are complete or absent: a kill at any moment leaves the old file or the new one."""

import contextlib
import glob
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from pipeline.runtime import errors

ABANDONED_SECONDS = 86_400.0  # a temporary file unchanged for a day has no writer any more


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that becomes `path` when the block ends without an exception.

    Each writer has its own temporary file beside `path` and renames it. So several processes may
    write at once, and a killed one leaves nothing under the final name. A device, such as
    /dev/stdout, is written directly.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; no file remains.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash could keep the new name and lose the content
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write(path: Path, content: str | bytes) -> None:
    """Replaces the file `path`; its folder is made if it is missing.

    Raises:
        OSError: it cannot be written.
    """
    with errors.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)


def digest(value: Any) -> str:
    """Returns 16 hexadecimal digits that stand for a value of JSON (SHA-256, keys sorted)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def unused(path: Path) -> Path:
    """Returns the path, with "-again" appended until nothing has that name."""
    while os.path.lexists(path):
        path = path.with_name(f"{path.name}-again")
    return path


def set_aside(path: Path) -> Path:
    """Renames what is damaged to an unused name that begins with `damaged-`; returns the new path.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = unused(path.with_name(f"damaged-{path.name}"))
    with errors.writing(path.parent):
        path.rename(aside)
    return aside


def _remove_abandoned(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()


class ArrayFile:
    """An npy file that is written row by row, from first to last.

    If the block raises, no file remains. If it ends before the last row, an assertion fails.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        """Begins the file beside `path`, under a temporary name; the folder must exist."""
        self._path, self._shape, self._dtype, self._rows = path, shape, dtype, 0
        self._open = contextlib.ExitStack()
        with errors.writing(path):
            self._file = self._open.enter_context(replacing(path))  # closed by __exit__
            descr = npy.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows [n, ...], converted to the file's dtype."""
        assert rows.shape[1:] == self._shape[1:], rows.shape
        # Not a memory map: a full disk would kill the process without an error.
        with errors.writing(self._path):
            self._file.write(rows.astype(self._dtype, order="C", copy=False).tobytes())
        self._rows += len(rows)

    def __enter__(self) -> "ArrayFile":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Renames the file to its final name, or removes it after an exception."""
        if error is None and self._rows != self._shape[0]:
            error = AssertionError(f"{self._rows} rows of {self._shape[0]}")
            self._open.__exit__(AssertionError, error, None)
            raise error
        with errors.writing(self._path):
            self._open.__exit__(kind, error, traceback)
