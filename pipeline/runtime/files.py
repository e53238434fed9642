"""Files that are complete or absent: a kill at any moment leaves the old file or the new one.

They lie in folders or in buckets (`storage`); a path of either kind may be given everywhere.
"""

import contextlib
import glob
import hashlib
import io
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.runtime.storage import faults, places

ABANDONED_SECONDS = 86_400.0  # a temporary file unchanged for a day has no writer any more


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that becomes `path` when the block ends without an exception.

    Each writer has its own temporary file beside `path` and renames it. So several processes may
    write at once, and a killed one leaves nothing under the final name. A device, such as
    /dev/stdout, is written directly. An object in a bucket is sent whole at the end.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; no file remains.
    """
    if places.is_bucket(path):
        with io.BytesIO() as content:
            yield content
            path.write_bytes(content.getvalue())
        return
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash could keep the new name and lose the content
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write(path: Path, content: str | bytes) -> None:
    """Replaces the file `path`; its folder is made if it is missing.

    Raises:
        OSError: it cannot be written.
    """
    with faults.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)


def create(path: Path, content: bytes) -> bool:
    """Creates a file with its whole content; returns False if there is something of that name.

    Of several processes that do so at once, on any machines, exactly one succeeds.

    Raises:
        OSError: it cannot be written.
    """
    if places.is_bucket(path):
        from pipeline.runtime.storage import requests

        return requests.create(path, content)
    with faults.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    return True


def _link(temporary: Path, path: Path) -> None:
    """Gives a whole file its final name, and fails if the name is taken, unlike a renaming."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as a mounted bucket
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with open(descriptor, "wb") as file:
            file.write(temporary.read_bytes())


def exists(path: Path) -> bool:
    """Says whether something has this name, a broken link included."""
    return path.exists() if places.is_bucket(path) else os.path.lexists(path)


def is_odd(path: Path) -> bool:
    """Says whether something of this name is no file, such as a folder or a pipe."""
    return not places.is_bucket(path) and path.exists() and not path.is_file()


def names(folder: Path) -> list[str]:
    """Returns the names in a folder, sorted; in a bucket none if the folder is missing.

    Raises:
        OSError: the folder is missing, or cannot be read.
    """
    if not places.is_bucket(folder):
        return sorted(os.listdir(folder))
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def digest(value: Any) -> str:
    """Returns 16 hexadecimal digits that stand for a value of JSON (SHA-256, keys sorted)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def unused(path: Path) -> Path:
    """Returns the path, with "-again" appended until nothing has that name."""
    while exists(path):
        path = path.with_name(f"{path.name}-again")
    return path


def set_aside(path: Path) -> Path:
    """Renames what is damaged to an unused name that begins with `damaged-`; returns the new path.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = unused(path.with_name(f"damaged-{path.name}"))
    with faults.writing(path.parent):
        path.rename(aside)
    return aside


def _remove_abandoned(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()
