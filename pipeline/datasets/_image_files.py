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

from pipeline.datasets import _paths
from pipeline.runtime import errors

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".pbm", ".pgm", ".ppm", ".pnm",
)  # fmt: skip
MAX_BYTES = 2**28  # of a file; a larger one counts as corrupt and is not read into memory
# Names that systems make: thumbnails, trash, or what macOS adds to zips.
SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
SYSTEM_FILES = ("Thumbs.db", "desktop.ini")


class Listing(NamedTuple):
    """What lies below a root: paths relative to it, with / on any system, in no order."""

    images: list[str]
    others: list[str]  # files that are no images by their names; hidden folders, which end in /
    folders: list[str]  # all that are not hidden


class Folder(NamedTuple):
    """The images below a folder, including those behind links."""

    root: Path

    def listing(self) -> Listing:
        """Lists the folder.

        Raises:
            InputError: a folder cannot be listed, or links to one that it lies in.
        """
        found = Listing([], [], [])
        _walk(str(self.root), "", frozenset(), found)
        return found

    def stamp(self, name: str) -> tuple[int, int, int, int]:
        """Returns a stamp that changes with the content or the permission; reads no content."""
        # No copying tool can set ctime, the third number.
        try:
            found = os.stat(f"{self.root}/{name}")
        except OSError:  # a broken link; `read` reports it
            return -1, -1, -1, -1
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino

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

    def listing(self) -> Listing:
        """Lists the zip; a folder need not be a member of its own.

        Raises:
            InputError: an image's name occurs twice, or is no plain relative path.
        """
        found, folders = Listing([], [], []), set()
        for info in self.archive.infolist():
            name, above = info.filename, info.filename.split("/")[:-1]
            hidden = next((i for i, part in enumerate(above) if _is_hidden(part)), len(above))
            if not {"", ".", ".."} & set(above):
                folders |= {"/".join(above[:i]) for i in range(1, hidden + 1)}
            if hidden < len(above):
                _note(found, "/".join(above[: hidden + 1]) + "/")
            elif not name.endswith("/"):
                _note(found, name)
        names = found.images
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
        return Listing(names, list(dict.fromkeys(found.others)), sorted(folders))

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
    if _paths.kind(path, "a folder or a zip of images") == "folder":
        yield Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise errors.InputError(
            f"{path} is neither a folder nor a whole zip ({error}): give one with images"
        ) from error
    with archive:
        yield Archive(archive)


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], found: Listing) -> None:
    try:
        here = os.stat(folder)
        entries = [(entry.name, _is_folder(entry)) for entry in os.scandir(folder)]
    except OSError as error:
        raise errors.InputError(
            f"{folder} cannot be listed ({error.strerror}): make it readable, or move it away"
        ) from error
    if (here.st_dev, here.st_ino) in above:
        raise errors.InputError(f"{folder} links to a folder that it lies in: remove the link")
    for name, is_folder in entries:
        if not is_folder:
            _note(found, prefix + name)
        elif _is_hidden(name):
            _note(found, f"{prefix}{name}/")
        else:
            found.folders.append(prefix + name)
            inner = above | {(here.st_dev, here.st_ino)}
            _walk(os.path.join(folder, name), f"{prefix}{name}/", inner, found)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; as an image it is reported when it is read
        return False


def _note(found: Listing, name: str) -> None:
    """Adds a file, or a hidden folder, to the images or to the others."""
    last = name.rstrip("/").rpartition("/")[2]
    if name.lower().endswith(SUFFIXES) and not _is_hidden(last):
        found.images.append(name)
    elif last not in (*SYSTEM, *SYSTEM_FILES, ".DS_Store") and not last.startswith("._"):
        found.others.append(name)


def _is_hidden(name: str) -> bool:
    return name in SYSTEM or (name.startswith(".") and name.strip(".") != "")


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{num_bytes} bytes, more than {MAX_BYTES}")
