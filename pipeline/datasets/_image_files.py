"""Images in a folder or a zip: their names and their bytes.

A folder and a zip of it have the same names. This module never unpacks a zip to disk, and does not
decode images.
"""

import contextlib
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.runtime import errors

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 2**28  # of a file; a larger one counts as corrupt and is not read into memory


class Folder(NamedTuple):
    """The images below a folder, including those behind links."""

    root: Path

    def names(self) -> list[str]:
        """Returns the images' paths relative to the root, with / on any system, in no order."""
        return list(_walk(str(self.root), "", frozenset()))

    def stamp(self, name: str) -> tuple[int, int]:
        """Returns a stamp that changes with the content or the permission; reads no content."""
        # ctime and not mtime, because no copying tool can set ctime.
        try:
            found = (self.root / name).stat()
        except OSError:  # a broken link; `read` reports it
            return -1, -1
        return found.st_size, found.st_ctime_ns

    def read(self, name: str) -> bytes:
        """Returns a file's content.

        Raises:
            ValueError: it is no regular file, or larger than MAX_BYTES.
            OSError: it cannot be read.
        """
        found = (self.root / name).stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("no regular file")  # opening a pipe would wait forever
        _check_size(found.st_size)
        return (self.root / name).read_bytes()


class Archive(NamedTuple):
    """The images of an open zip, which several threads may read at the same time."""

    archive: zipfile.ZipFile

    def names(self) -> list[str]:
        """Returns the names of the members that are images, in no order.

        Raises:
            InputError: a name occurs twice, or is no plain relative path.
        """
        names = [info.filename for info in self.archive.infolist() if _is_image(info.filename)]
        for name in names:
            if "\\" in name or {"", ".", ".."} & set(name.split("/")):
                raise errors.InputError(
                    f"{self.archive.filename} has the member {name!r}, no plain relative path: "
                    "make the zip again"
                )
        for name, count in Counter(names).most_common(1):
            if count > 1:
                raise errors.InputError(
                    f"{self.archive.filename} has {count} members {name!r}: make the zip again"
                )
        return names

    def stamp(self, name: str) -> tuple[int, int]:
        """Returns the size and the CRC-32 of the content; reads no content."""
        info = self.archive.getinfo(name)
        return info.file_size, info.CRC

    def read(self, name: str) -> bytes:
        """Returns a member's content.

        Raises:
            ValueError: it is larger than MAX_BYTES.
            Exception: zipfile raises many kinds of errors on a damaged member.
        """
        _check_size(self.archive.getinfo(name).file_size)
        return self.archive.read(name)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Folder | Archive]:
    """Opens a folder or a zip.

    Raises:
        InputError: `path` is neither.
    """
    if path.is_dir():
        yield Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} is missing: --config.data.path must be a folder or a zip of images"
        ) from None
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise errors.InputError(
            f"{path} is neither a folder nor a whole zip ({error}): give one with images"
        ) from error
    with archive:
        yield Archive(archive)


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    try:
        found = os.stat(folder)
        entries = [(entry.name, entry.is_dir()) for entry in os.scandir(folder)]
    except OSError as error:
        raise errors.InputError(
            f"{folder} cannot be listed ({error.strerror}): make it readable, or move it away"
        ) from error
    if (found.st_dev, found.st_ino) in above:
        raise errors.InputError(f"{folder} links to a folder that it lies in: remove the link")
    for name, is_folder in entries:
        if is_folder and not _is_hidden(name):
            inner = above | {(found.st_dev, found.st_ino)}
            yield from _walk(os.path.join(folder, name), f"{prefix}{name}/", inner)
        elif not is_folder and _is_image(name):
            yield prefix + name


def _is_image(name: str) -> bool:
    parts = name.split("/")
    return name.lower().endswith(SUFFIXES) and not any(map(_is_hidden, parts))


def _is_hidden(name: str) -> bool:
    """Says whether a system made the name: thumbnails, trash, or what macOS adds to zips."""
    return name == "__MACOSX" or (name.startswith(".") and name.strip(".") != "")


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{num_bytes} bytes, more than {MAX_BYTES}")
