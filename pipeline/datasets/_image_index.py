"""What the files of a folder contain, without reading all of them at each start.

A packed copy is named by digests of its files' contents. So it serves whatever changes only times,
permissions or the path. An index in the cache keeps each file's digest with a stamp (size, times,
inode). A file is read again only if its stamp is another one.
"""

import contextlib
import errno
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pipeline.datasets import _image_files
from pipeline.runtime import cache, errors

CHUNK = 64  # files per task of a thread
DIGEST_BYTES = 16
# A file may change twice within one tick of its file system's clock. So the stamp of a file that
# changed this shortly before it was read is not trusted.
RECENT_SECONDS = 2.0
# Errors that belong to one file and occur every time: a broken link, no permission, a loop of
# links. Others, such as those of a failing disk, may hit only one process.
FILE_ERRORS = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP)

T = TypeVar("T")
Files = _image_files.Folder | _image_files.Archive


class Index(NamedTuple):
    """The digests of a folder's files, and the copies that were made of them."""

    names: Sequence[str]
    stamps: np.ndarray  # [N, 4] int64; −1: read the file again
    digests: np.ndarray  # [N, 16] uint8
    copies: dict[str, str]  # names of the newest copies, by format


def opened(path: Path, files: Files, names: Sequence[str]) -> Index:
    """Returns the index of these files, in this order; reads those that are new or changed.

    Raises:
        InputError: the disk fails.
    """
    before = _read(_place(path))
    copies = {} if before is None else before.copies
    stamps = np.array([files.stamp(name) for name in names], np.int64)
    if isinstance(files, _image_files.Archive):  # its members have checksums
        return Index(names, stamps, stamps.view(np.uint8), copies)
    now = time.time_ns()
    digests, known = np.zeros((len(names), DIGEST_BYTES), np.uint8), np.zeros(len(names), bool)
    if before is not None and len(before.names):
        row = {name: number for number, name in enumerate(before.names)}
        old = np.array([row.get(name, -1) for name in names])
        known = (old >= 0) & (stamps[:, 0] >= 0) & (before.stamps[old] == stamps).all(axis=1)
        digests[known] = before.digests[old[known]]
    fresh = np.flatnonzero(~known)
    if fresh.size:
        digests[fresh] = _digests(files, [names[number] for number in fresh.tolist()])
    trusted = stamps[:, 2] < now - RECENT_SECONDS * 1e9  # by ctime
    index = Index(names, np.where(trusted[:, None], stamps, -1), digests, copies)
    if before is None or fresh.size or list(before.names) != list(names):
        _keep(path, index)
    return index


def replaced(path: Path, index: Index, form: str, copy: Path) -> Path | None:
    """Notes the copy that was made in a format; returns the one that it takes the place of."""
    before = index.copies.get(form)
    if before == copy.name:
        return None
    _keep(path, index._replace(copies={**index.copies, form: copy.name}))
    return copy.with_name(before) if before else None


def read(files: Files, name: str) -> tuple[bytes, str]:
    """Returns a file's content, and why it cannot be read (then the content is empty).

    Raises:
        InputError: the disk fails.
    """
    try:
        return files.read(name), ""
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises any error on damaged members
        if isinstance(error, OSError):
            if error.errno not in FILE_ERRORS:
                raise errors.InputError(
                    f"{name!r} cannot be read ({error}): see to the disk or file server that holds "
                    "it, then start again"
                ) from error
            if error.errno is not None:  # without the path, which may be another one next time
                return b"", f"[Errno {error.errno}] {error.strerror}"
        return b"", " ".join(str(error).split()) or type(error).__name__


def chunks(num: int, task: Callable[[int], T]) -> Iterator[tuple[int, T]]:
    """Yields (number done, result of `task(first)`) for each chunk, in order."""
    firsts = range(0, num, CHUNK)
    with ThreadPoolExecutor() as pool:
        for first, found in zip(firsts, pool.map(task, firsts), strict=True):
            yield min(first + CHUNK, num), found


def _digests(files: Files, names: Sequence[str]) -> np.ndarray:
    def task(first: int) -> bytes:
        found = b""
        for name in names[first : first + CHUNK]:
            content, reason = read(files, name)
            digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=reason.encode()[:64])
            found += digest.digest()
        return found

    whole = b"".join(part for _, part in chunks(len(names), task))
    return np.frombuffer(whole, np.uint8).reshape(-1, DIGEST_BYTES)


def _place(path: Path) -> Path:
    return cache.folder() / f"images-{cache.key(str(path.absolute()))}.index"


def _keep(path: Path, index: Index) -> None:
    arrays = {
        "names": np.frombuffer(json.dumps(list(index.names)).encode(), np.uint8),
        "copies": np.frombuffer(json.dumps(index.copies).encode(), np.uint8),
        "stamps": index.stamps,
        "digests": index.digests,
    }
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    # Without an index the files are read again at the next start, which is no reason to fail.
    with contextlib.suppress(OSError):
        cache.write_digested(_place(path), content.getvalue())


def _read(place: Path) -> Index | None:
    content = cache.read_digested(place)
    if content is None:
        return None
    # The digest fits, so only another version's format could raise an error here.
    try:
        with np.load(io.BytesIO(content)) as arrays:
            texts = {name: json.loads(arrays[name].tobytes()) for name in ("names", "copies")}
            return Index(texts["names"], arrays["stamps"], arrays["digests"], texts["copies"])
    except (ValueError, KeyError, zipfile.BadZipFile):
        return None
