"""The user's cache folder, which keeps what is fetched, derived or compiled once."""

import contextlib
import fcntl
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.runtime import errors, files, processor
from pipeline.runtime.storage import faults, places


def folder() -> Path:
    """Returns the path of `vae-pipeline` in XDG_CACHE_HOME or ~/.cache; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says to ignore a relative path, which is invalid.
    if os.path.isabs(root):
        return Path(root) / "vae-pipeline"
    try:
        return Path.home() / ".cache" / "vae-pipeline"
    except RuntimeError:
        raise errors.InputError(
            "this user has no home folder to keep a cache in: set XDG_CACHE_HOME to a folder"
        ) from None


def key(*parts: object) -> str:
    """Returns 24 hexadecimal digits that stand for the values (SHA-256 of their `repr`)."""
    return hashlib.sha256(repr(parts).encode("ascii", "backslashreplace")).hexdigest()[:24]


def open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Maps an npy file of uint8; returns None if it is missing, damaged or of another shape."""
    header = _header(shape)
    size = len(header) + int(np.prod(shape, dtype=np.int64))
    # Only one header is right for a shape, so there is no need to parse a damaged one.
    if not path.is_file() or path.stat().st_size != size:
        return None
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            return None
    return np.memmap(path, np.uint8, mode="r", offset=len(header), shape=shape)


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Begins an npy file of uint8, all zero; returns the offset of the array's first byte."""
    first_byte = file.write(_header(shape))
    file.flush()
    file.truncate(first_byte + int(np.prod(shape, dtype=np.int64)))
    return first_byte


def _header(shape: tuple[int, ...]) -> bytes:
    header, file = {"descr": "|u1", "fortran_order": False, "shape": shape}, io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def write_digested(path: Path, content: bytes) -> None:
    """Replaces a file by a SHA-256 digest and the content.

    Raises:
        OSError: as in `writing`.
    """
    with writing(path) as file:
        file.write(hashlib.sha256(content).digest() + content)


def read_digested(path: Path) -> bytes | None:
    """Returns the content of such a file; None if it is missing, damaged or cannot be read."""
    if not path.is_file():
        return None
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    content = whole[hashlib.sha256().digest_size :]
    return content if whole.startswith(hashlib.sha256(content).digest()) else None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time make `path`; the kernel frees the lock of a process that dies.

    If the file system has no locks, several processes make `path` at once. That costs time but does
    no harm, because each of them replaces the file atomically.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without O_NONBLOCK a pipe of that name would be waited for.
            flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path.with_suffix(".lock"), flags, 0o666)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that becomes `path` when the block ends without an exception.

    It works as `files.replacing` does, and also makes the folder if it is missing.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; no file remains.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            path.unlink()  # a pipe or a device, which would be written instead of replaced
        with files.replacing(path) as file:
            yield file
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path} ({error.strerror or error}): make room there, or set "
            "XDG_CACHE_HOME to a folder that has it",
        ) from error


LEAST_SECONDS = 0.2  # a program that compiles faster is not cached


def enable_compilation_cache(place: str) -> None:
    """Turns JAX's compilation cache on; must be called before anything is compiled.

    Args:
        place: a folder that all processes share, or a place in a bucket; only process 0 writes to
            it. "auto" means the environment's JAX_COMPILATION_CACHE_DIR, or else the user's cache
            folder; "" means no cache.

    Raises:
        InputError: the folder cannot be made.
    """
    import jax

    if not place:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    # A folder that the user names must work; the one in the user's cache may fail without harm.
    if place == "auto":
        if jax.config.values["jax_compilation_cache_dir"]:
            return
        try:
            made = folder() / "compiled"
        except errors.InputError:  # no home folder, so programs are compiled at each start
            jax.config.update("jax_enable_compilation_cache", False)
            return
    else:
        made = places.of(place, name="config.compilation_cache")
        try:
            made.mkdir(parents=True, exist_ok=True)
            if places.is_bucket(made):
                faults.check_writable(made)
        except OSError as error:
            raise errors.InputError(
                f"config.compilation_cache={place} cannot be made ({error.strerror}): choose "
                "another folder, or '' for none"
            ) from None
    # Programs for the CPU use the instructions of the processor that compiled them.
    settings: dict[str, Any] = {
        "jax_compilation_cache_dir": str(made / _processor()),
        "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS,
        "jax_raise_persistent_cache_errors": False,  # a full disk must not stop a run
    }
    for name, value in settings.items():
        jax.config.update(name, value)


def _processor() -> str:
    """Returns a name for this machine's kind of processor: its architecture and a hash."""
    traits = sorted(set(processor.lines("model name", "flags", "Features")))
    return f"{os.uname().machine}-{key(*traits)[:8]}"
