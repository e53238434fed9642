"""The files of leases in a bucket, by conditional writes."""

import contextlib
from pathlib import Path
from typing import Any

from pipeline.runtime import files
from pipeline.runtime.storage import places
from pipeline.runtime.workdir import lease_files


class Bucket:
    """As `lease_files.Folder`, in a bucket; each sign of life is four requests."""

    beat_seconds = 10.0
    patience_seconds = 60.0

    def __init__(self, folder: Any):
        """Opens a place in a bucket."""
        self._folder = folder
        self.identity = str(folder)

    def __str__(self) -> str:
        """Names the folder as the user does."""
        return f"--workdir={self._folder}"

    def names(self) -> list[str]:
        """Returns the names of all files."""
        return files.names(self._folder)

    def create(self, name: str, content: bytes) -> bool:
        """Creates an object; returns False if there is one already."""
        return files.create(self._folder / name, content)

    def read(self, name: str) -> bytes | None:
        """Returns the content; None if the object is missing."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def update(self, name: str, content: bytes, mark: str) -> bool:
        """Replaces the content if it has the mark, and is the one just read; says whether it has.

        So an object that another process removed or replaced meanwhile stays as it is.
        """
        from pipeline.runtime.storage import requests

        path = self._folder / name
        try:
            found, version = requests.read_version(path)
        except FileNotFoundError:
            return False
        return mark.encode() in found and requests.replace(path, content, version)

    def delete(self, name: str) -> None:
        """Removes an object, if it is there."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()


def of(folder: Path) -> Any:
    """Returns the files of leases in a folder that exists, or in a bucket."""
    return Bucket(folder) if places.is_bucket(folder) else lease_files.Folder(folder)
