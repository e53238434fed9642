"""Paths in buckets. An object is written whole by one request, which is atomic and durable.

So nothing is renamed or synced, and there are no folders: a folder is what names have in common.
"""

import errno
import fnmatch
import io
import types
from collections.abc import Iterator
from typing import IO, Any, Self

from etils import epath

from pipeline.runtime import storage
from pipeline.runtime.storage import requests

connect = requests.connect
_AnyPath: Any = type(epath.Path("/"))


class BucketPath(_AnyPath):
    """A path such as gs://bucket/runs/a, with the methods of `pathlib.Path` that make sense."""

    @property
    def store(self) -> Any:
        """Returns fsspec's file system of the store."""
        return requests.connect(str(self).partition("://")[0])

    def read_bytes(self) -> bytes:
        """Returns the content of an object."""
        with requests.asking(self):
            return self.store.cat_file(str(self))

    def read_text(self, encoding: str | None = None) -> str:
        """Returns the content of an object as a text in UTF-8."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, content: bytes) -> int:
        """Writes an object whole: readers see the old one or the new one."""
        with requests.asking(self):
            self.store.pipe_file(str(self), bytes(content))
        return len(content)

    def write_text(self, text: str, encoding: str | None = None) -> int:
        """Writes an object whole, in UTF-8."""
        return self.write_bytes(text.encode(encoding or "utf-8"))

    def open(self, mode: str = "rb", **options: Any) -> IO[Any]:
        """Returns the content as a file to read; objects are written by `write_bytes`."""
        assert mode == "rb" and not options, (mode, options)
        return io.BytesIO(self.read_bytes())

    def exists(self) -> bool:
        """Says whether there is an object of this name, or below it."""
        with requests.asking(self):
            return self.store.exists(str(self))

    def is_file(self) -> bool:
        """Says whether there is an object of this name."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Says whether there are objects below this name."""
        return self._kind() == "directory"

    def is_symlink(self) -> bool:
        """Returns False."""
        return False

    def stat(self) -> Any:
        """Returns the size in bytes, as `st_size`."""
        with requests.asking(self):
            return types.SimpleNamespace(st_size=self.store.info(str(self))["size"])

    def iterdir(self) -> Iterator[Self]:
        """Yields what is directly below this name, sorted."""
        with requests.asking(self):
            found = self.store.ls(str(self), detail=False)
        names = {name.rstrip("/").rpartition("/")[2] for name in found}
        yield from (self / name for name in sorted(names - {"", self.name} | (names & {self.name})))

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yields what is directly below this name and matches the pattern, sorted."""
        if self.exists():
            yield from (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def below(self) -> list[Self]:
        """Returns all objects below this name, at any depth, sorted."""
        with requests.asking(self):
            found = self.store.find(str(self))
        start = len(str(self).partition("://")[2])
        return [self / name[start:].lstrip("/") for name in sorted(found) if len(name) > start]

    def mkdir(self, *args: Any, **options: Any) -> None:
        """Does nothing: there are no folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object."""
        try:
            with requests.asking(self):
                self.store.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def copy(self, dst: Any, overwrite: bool = False) -> Self:
        """Copies an object to another name, within the store."""
        with requests.asking(self):
            self.store.cp_file(str(self), str(dst))
        return self._new(dst)

    def rename(self, target: Any) -> Self:
        """Moves an object, or all objects below this name; a kill on the way loses nothing.

        Everything is copied first. The marker that makes a checkpoint valid is copied last and
        removed first, so that there is no moment in which half a checkpoint is valid.
        """
        target = self._new(target)
        moved = [self] if self.is_file() else sorted(self.below(), key=_is_marker)
        if not moved:
            raise FileNotFoundError(errno.ENOENT, "there is nothing of this name", str(self))
        start = len(str(self))
        for path in moved:
            path.copy(self._new(str(target) + str(path)[start:]))
        for path in reversed(moved):
            path.unlink(missing_ok=True)
        return target

    def rmtree(self, missing_ok: bool = False) -> None:
        """Removes all objects below this name, a checkpoint's marker first."""
        for path in sorted(self.below(), key=_is_marker, reverse=True):
            path.unlink(missing_ok=True)

    def absolute(self) -> Self:
        """Returns the path itself."""
        return self

    expanduser = absolute

    def resolve(self, strict: bool = False) -> Self:
        """Returns the path itself."""
        return self

    def _kind(self) -> str:
        try:
            with requests.asking(self):
                return self.store.info(str(self))["type"]
        except FileNotFoundError:
            return ""


def _is_marker(path: BucketPath) -> bool:
    return path.name == storage.MARKER
