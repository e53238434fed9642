"""What lies in a folder of shards, on this machine or in a bucket."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime import files
from pipeline.runtime.storage import places


def names(folder: Path) -> list[str]:
    """Returns the names in a folder, none if there is no such folder."""
    try:
        return files.names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of the files in a folder, by name; {} if there is no such folder."""
    try:
        if not places.is_bucket(folder):
            with os.scandir(folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        from pipeline.runtime.storage import requests

        bucket: Any = folder
        with requests.asking(folder):
            found = bucket.store.ls(str(folder), detail=True)
        return {one["name"].rpartition("/")[2]: one["size"] for one in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}


class PixelsInBucket:
    """The rows of an npy file [n, H, W, C] uint8 in a bucket; each read sends a request a row."""

    def __init__(self, path: Any, shape: tuple[int, ...], num_bytes: int):
        """Sends no request yet."""
        self._path, self._shape = path, shape
        self._row = int(np.prod(shape[1:]))
        self._first = num_bytes - shape[0] * self._row  # behind the header

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [k] as [k, H, W, C] uint8."""
        from pipeline.runtime.storage import requests

        starts = [self._first + row * self._row for row in rows.tolist()]
        ends = [start + self._row for start in starts]
        with requests.asking(self._path):
            found = self._path.store.cat_ranges([str(self._path)] * len(starts), starts, ends)
        return np.frombuffer(b"".join(found), np.uint8).reshape(len(rows), *self._shape[1:])
