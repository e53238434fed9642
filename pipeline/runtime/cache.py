"""The user's cache folder, which keeps what is fetched, derived or compiled once."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.runtime import errors, files, processor


def folder() -> Path:
    """Returns the path of `vae-pipeline` in XDG_CACHE_HOME or ~/.cache; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says to ignore a relative path, which is invalid.
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "vae-pipeline"


def key(*parts: object) -> str:
    """Returns 24 hexadecimal digits that stand for the values (SHA-256 of their `repr`)."""
    return hashlib.sha256(repr(parts).encode("ascii", "backslashreplace")).hexdigest()[:24]


def open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Maps an npy file of uint8; returns None if it is missing, damaged or of another shape."""
    if not path.is_file():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Begins an npy file of uint8, all zero; returns the offset of the array's first byte."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.flush()
    first_byte = file.tell()
    file.truncate(first_byte + int(np.prod(shape, dtype=np.int64)))
    return first_byte


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time make `path`; the kernel frees the lock of a process that dies.

    If the file system has no locks, several processes make `path` at once. That costs time but does
    no harm, because each of them replaces the file atomically.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path.with_suffix(".lock"), "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
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
        place: a folder that all processes share (only process 0 writes to it). "auto" means the
            environment's JAX_COMPILATION_CACHE_DIR, or else the user's cache folder; "" means no
            cache.

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
        made = folder() / "compiled"
    else:
        made = Path(place).expanduser().absolute()
        try:
            made.mkdir(parents=True, exist_ok=True)
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
