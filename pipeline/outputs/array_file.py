"""An npy file that is written row by row, and is complete or absent."""

import contextlib
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy

from pipeline.runtime import files
from pipeline.runtime.storage import faults


class ArrayFile:
    """An npy file that is written row by row, from first to last.

    If the block raises, no file remains. If it ends before the last row, an assertion fails.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        """Begins the file beside `path`, under a temporary name; the folder must exist."""
        self._path, self._shape, self._dtype, self._rows = path, shape, dtype, 0
        self._open = contextlib.ExitStack()
        with faults.writing(path):
            self._file = self._open.enter_context(files.replacing(path))  # closed by __exit__
            descr = npy.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows [n, ...], converted to the file's dtype."""
        assert rows.shape[1:] == self._shape[1:], rows.shape
        # Not a memory map: a full disk would kill the process without an error.
        with faults.writing(self._path):
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
        with faults.writing(self._path):
            self._open.__exit__(kind, error, traceback)
