"""CIFAR-10's published binary archive, packed once into the user's cache.

The page cs.toronto.edu/~kriz/cifar.html describes the format. There are five training batches and
one test batch of 10,000 examples each. An example is one byte for the class, then the pixels as
three planes.
"""

import contextlib
import functools
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets import _checked_rows
from pipeline.runtime import cache, errors

PARTS = {
    "train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
    "heldout": ("test_batch.bin",),
}
BATCH = 10_000  # examples per file
PIXELS = 32 * 32 * 3
RECORD = 1 + PIXELS  # bytes: the class, then the pixels
MAX_BYTES = 2**26  # of a batch, which has about half of that
# Errors that a damaged archive may raise when it is read.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    zlib.error,
    tarfile.TarError,
)


def load(path: Path) -> dict[str, _checked_rows.Rows]:
    """Opens an archive (.tar.gz) or its unpacked folder, through packed copies of its splits.

    Returns:
        `train` and `heldout`: records [N, 3073] uint8, in the order of the files. A record is the
        class, then the pixels row by row, with a pixel's three channels together.

    Raises:
        InputError: a batch is missing or damaged.
        OSError: a copy cannot be written.
    """
    key = cache.key(_digests(path))
    copies = {part: cache.folder() / f"cifar10-{key}-{part}.npy" for part in PARTS}
    parts = _open(copies, path)
    if parts is None:
        with cache.locked(copies["train"]):
            # Another process may have made them before the lock was free.
            parts = _open(copies, path)
            if parts is None:
                _pack(path, copies)
                parts = _open(copies, path)
    assert parts is not None, copies
    return parts


def no_pickles(path: Path) -> errors.InputError:
    """Returns the error for the other published archive, which holds pickles."""
    return errors.InputError(
        f"{path} holds CIFAR-10's python archive, and pickles are not read: give "
        "--config.data.path=cifar-10-binary.tar.gz, or leave it out to have that fetched"
    )


def _open(copies: dict[str, Path], path: Path) -> dict[str, _checked_rows.Rows] | None:
    parts = {}
    for part, copy in copies.items():
        shape = (len(PARTS[part]) * BATCH, RECORD)
        records = _checked_rows.opened(copy, shape, functools.partial(_again, path, PARTS[part]))
        if records is None:
            return None
        parts[part] = records
    return parts


def _pack(path: Path, copies: dict[str, Path]) -> None:
    with _opened(path) as (names, read):
        if "data_batch_1" in names:
            raise no_pickles(path)
        for name in (name for part in PARTS.values() for name in part):
            if name not in names:
                raise errors.InputError(
                    f"{path} has no {name}: give the whole published archive, or its folder"
                )
        for part, copy in copies.items():
            sums = []
            with cache.writing(copy) as file:
                file.seek(cache.write_header(file, (len(PARTS[part]) * BATCH, RECORD)))
                for name in PARTS[part]:
                    records = _records(path, read, name)
                    sums.append(_checked_rows.checksums(records))
                    file.write(records.data)
                # Before the copy has its name, because a copy without checksums is ignored.
                _checked_rows.write_sums(copy, np.concatenate(sums))


def _again(path: Path, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
    """Returns some records of a split, [n, 3073] uint8, from the published files."""
    with _opened(path) as (_, read):
        return np.concatenate([_records(path, read, name) for name in names])[rows]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[set[str], Callable[[str], bytes]]]:
    """Yields the file names of a folder or archive, and a function that reads one file."""
    if path.is_dir():
        # A pipe would be waited for, so only regular files count.
        found = {file.name for file in path.iterdir() if file.is_file()}
        yield found, lambda name: (path / name).read_bytes()
        return
    with contextlib.ExitStack() as stack:
        try:
            with gzip.open(path) as file:  # gzip compares the checksum only at the end
                while file.read(2**20):
                    pass
            archive = stack.enter_context(tarfile.open(path, "r:gz"))
            members = {member.name.split("/")[-1]: member for member in archive if member.isreg()}
        except DAMAGE as error:
            raise errors.InputError(
                f"{path} is damaged or no .tar.gz ({_reason(error)}): fetch it again"
            ) from error

        def read(name: str) -> bytes:
            if members[name].size > MAX_BYTES:
                raise ValueError(f"{members[name].size} bytes, more than {MAX_BYTES}")
            member = archive.extractfile(members[name])
            assert member is not None, name
            return member.read()

        yield set(members), read


def _digests(path: Path) -> list[tuple[str, str]]:
    """Returns the names and SHA-256 digests of the archive, or of each batch in a folder."""
    batches = [name for part in PARTS.values() for name in part]
    files = [path / name for name in batches] if path.is_dir() else [path]
    digests = []
    for found in filter(Path.is_file, files):
        with open(found, "rb") as file:
            digests.append((found.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return digests


def _records(path: Path, read: Callable[[str], bytes], name: str) -> np.ndarray:
    """Returns a batch as records [10,000, 3073] uint8, with the channels of a pixel together.

    Raises:
        InputError: the file is damaged, or is not a batch.
    """
    try:
        content = read(name)
        label, planes = _binary(content)
    except DAMAGE as error:
        raise errors.InputError(
            f"{path}: {name} is damaged or no batch of CIFAR-10 ({_reason(error)}): fetch the "
            "published archive again"
        ) from error
    records = np.empty((BATCH, RECORD), np.uint8)
    records[:, 0] = label
    pixels = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    records[:, 1:] = pixels.reshape(BATCH, PIXELS)
    return records


def _binary(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels [10,000] uint8 and planes [10,000, 3072] uint8.

    Raises:
        ValueError: the content is not a batch.
    """
    if len(content) != BATCH * RECORD:
        raise ValueError(f"{len(content)} bytes, not {BATCH * RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(BATCH, RECORD)
    label = records[:, 0]
    if label.max() > 9:
        raise ValueError(f"labels {label.min()} … {label.max()}, not only 0 to 9")
    return label, records[:, 1:]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
