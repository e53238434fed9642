"""Files that are whole or not there: a kill at any moment leaves the old one, or the new."""

import contextlib
import os
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy

from pipeline.runtime import errors


def write(path: Path, content: str | bytes) -> None:
    """Replaces the file `path`; its folder is made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with errors.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)


class ArrayFile:
    """An npy file that is written from its first row to its last.

    Left with an exception, nothing remains; left before the last row, an assertion fails.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        """Begins the file beside `path`, under a temporary name; the folder must exist."""
        self._path, self._temporary = path, path.with_name(f".{path.name}.tmp")
        self._shape, self._dtype, self._rows = shape, dtype, 0
        with errors.writing(path):
            self._file = self._temporary.open("wb")  # closed by __exit__
            descr = npy.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows [n, ...], in the file's type."""
        assert rows.shape[1:] == self._shape[1:], rows.shape
        # A memory map would do, but dies of a full disk without an error.
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
        """Gives the file its name, or removes it after an exception."""
        try:
            if error is None:
                assert self._rows == self._shape[0], (self._rows, self._shape)
                with errors.writing(self._path):
                    self._file.flush()
                    os.fsync(self._file.fileno())  # the name must not outlive lost content
                    self._file.close()
                    os.replace(self._temporary, self._path)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink()
