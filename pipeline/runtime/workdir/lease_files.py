"""The files of leases, by operations that every file system has; `lease_objects` has buckets."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.runtime.storage import faults, places
from pipeline.runtime.workdir import liveness

NAME = re.compile(r"\.lease-([1-9][0-9]*)")


class Folder:
    """Small files in a folder. Only `create` decides who wins: one of many, on any file system.

    Attributes:
        identity: of the folder; a copy of the folder has another one.
        beat_seconds: between two signs of life of a holder.
        patience_seconds: a file that did not change for so long has no holder any more.
    """

    beat_seconds = 2.0
    patience_seconds = 20.0

    def __init__(self, folder: Path):
        """Opens a folder that exists."""
        self._folder = folder
        self.identity = str(folder.stat().st_ino)
        if liveness.caches_files(folder):  # a file may show an old content for about a minute
            self.patience_seconds = 90.0

    def __str__(self) -> str:
        """Names the folder as the user does."""
        return f"--workdir={self._folder}"

    def names(self) -> list[str]:
        """Returns the names of all files."""
        return os.listdir(self._folder)

    def create(self, name: str, content: bytes) -> bool:
        """Creates a file; returns False if there is one already, of any kind."""
        path = self._folder / name
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            try:
                os.write(file, content)
                os.fsync(file)
            finally:
                os.close(file)  # a network file system may report a full disk here
        except OSError:
            self.delete(name)
            raise
        return True

    def read(self, name: str) -> bytes | None:
        """Returns the content; None if the file is missing, b"" if it cannot be read."""
        try:
            file = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError:
            return b""
        try:
            return os.read(file, 4096)
        except OSError:
            return b""
        finally:
            os.close(file)

    def update(self, name: str, content: bytes, mark: str) -> bool:
        """Replaces the content, of the same length, if it has the mark; returns whether it has.

        The file is rewritten in place: this needs no space, and never brings back a removed file.
        """
        try:
            file = os.open(self._folder / name, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            if mark.encode() not in os.read(file, 4096):
                return False
            os.pwrite(file, content, 0)
        finally:
            os.close(file)
        return True

    def delete(self, name: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder / name)


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Makes a folder for the block, which stays if there is something in it at the end.

    Raises:
        InputError: a bucket is missing, or refuses to be written.
        OSError: it cannot be made.
    """
    if places.is_bucket(folder):
        faults.check_writable(folder)
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with faults.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()


def numbers(files: Any) -> list[int]:
    """Returns the numbers of all leases, ascending."""
    found = (NAME.fullmatch(name) for name in files.names())
    return sorted(int(match[1]) for match in found if match)


def name_of(number: int) -> str:
    """Returns the name of a lease's file."""
    return f".lease-{number}"


def content(note: dict[str, Any], *, beats: int, leaving: bool) -> bytes:
    """Returns the content of a lease's file, which always has the same length."""
    return f'{json.dumps(note)[:-1]}, "leaving": {leaving:d}, "beats": {beats:9d}}}\n'.encode()


def parsed(content: bytes | None) -> dict[str, Any]:
    """Returns what `content` wrote; {} if the file is missing or damaged."""
    try:
        found = json.loads(content or b"")
    except (ValueError, RecursionError):  # a start was killed, or found no space, while writing it
        return {}
    return found if isinstance(found, dict) else {}


def holder(note: dict[str, Any]) -> str:
    """Names the process that holds a lease."""
    if "host" not in note:
        return "a run that has left no name"
    text = f"process {note.get('pid')} on {note['host']} since {note.get('since')}"
    return " ".join(text.split())
