"""What lies at a path that the user gave, told without opening it: a pipe would be waited for."""

import errno
import os
import stat
from pathlib import Path

from pipeline.runtime import errors


def expanded(given: str) -> Path:
    """Returns `config.data.path` with ~ as the home folder.

    Raises:
        InputError: there is no such user, no system has such a path, or it lies in a bucket.
    """
    if "://" in given:
        raise errors.InputError(
            f"config.data.path={given}: only data.name='prepared' reads buckets; copy the data to "
            "a folder, mount the bucket, or give what python -m pipeline.prepare made of them"
        )
    if "\0" in given or "\n" in given:
        raise errors.InputError(
            f"config.data.path={given!r} has a character that cannot be shown or used: rename it"
        )
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise errors.InputError(
            f"config.data.path={given} names the home folder of a user whom this system does not "
            "know: write the whole path"
        ) from None


def shown(name: object) -> str:
    """Returns a name for messages and pictures: what cannot be printed is escaped, as in \\n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def kind(path: Path, wanted: str) -> str:
    """Returns "folder" or "file".

    Args:
        path: follows links.
        wanted: what it must be, for the error.

    Raises:
        InputError: nothing is there, it cannot be looked at, or it is a pipe, socket or device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        what = "is missing" if missing else f"cannot be opened ({error.strerror})"
        raise errors.InputError(f"{path} {what}: --config.data.path must be {wanted}") from None
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    raise errors.InputError(
        f"{path} is a pipe, a socket or a device: --config.data.path must be {wanted}"
    )
