"""Faults of disks and stores while something is written: one line that names place and repair."""

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.runtime import errors
from pipeline.runtime.storage import places


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Replaces an error of the disk or store in the block by an OSError that names `path`.

    Raises:
        OSError: the disk or the store failed; the text names the repair.
        ValueError: the block raised one that comes from no disk.
    """
    try:
        yield
    except errors.InputError:
        raise
    except Exception as error:
        if places.is_bucket(path):
            if isinstance(error, OSError) and error.strerror:  # `requests` has made it
                raise
            from pipeline.runtime.storage import requests

            raise requests.as_os_error(error, path) from error
        # TensorStore, below Orbax, raises a ValueError.
        found = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number is None or not isinstance(error, (OSError, ValueError)):
            raise
        raise OSError(
            number,
            f"cannot write to {path} ({os.strerror(number)}): earlier complete files are intact; "
            "repair this, then run the same command again",
        ) from error


def check_writable(path: Path, *, hint: str = "") -> None:
    """Checks that a folder can be made or written at `path`; leaves nothing there.

    Raises:
        InputError: a bucket is missing, or refuses to be written.
        OSError: a folder cannot be made or written, or the store fails.
    """
    if places.is_bucket(path):
        _check_bucket(path, hint)
        return
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    # Only an attempt tells: permissions look good to root, and on a read-only or virtual disk.
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".probe-", dir=place))
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise OSError(error.errno, f"cannot write to {path} ({reason} at {place}){hint}") from error


def check_readable(path: Path) -> None:
    """Checks that a bucket may be read, before anything slow begins; a folder is not looked at.

    Raises:
        InputError: the store refuses it.
        OSError: the store cannot be reached.
    """
    if places.is_bucket(path):
        try:
            path.exists()
        except PermissionError as error:
            raise errors.InputError(str(error.strerror)) from None


def _check_bucket(path: Path, hint: str) -> None:
    """Writes a small object and removes it: nothing else shows that a bucket can be written."""
    from pipeline.runtime.storage import requests

    probe = path / f".probe-{secrets.token_hex(8)}"
    try:
        requests.create(probe, b"")
        probe.unlink(missing_ok=True)
    except FileNotFoundError:
        name = str(path).split("/")[2]
        raise errors.InputError(
            f"{path} cannot be written: there is no bucket {name!r}; make it, or name another{hint}"
        ) from None
    except PermissionError as error:
        raise errors.InputError(f"{error.strerror}{hint}") from None
