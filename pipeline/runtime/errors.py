"""Why a command cannot go on: an `InputError` is the user's to repair, all else is a fault."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """A value from outside (config, flag, path, file) that cannot work.

    The message is one line: the value received and the repair. Commands print it and exit with 2,
    before anything is compiled.
    """


def check_range(
    name: str, value: float, least: float, most: float | None = None, *, hint: str = ""
) -> None:
    """Raises an InputError if `value` is less than `least`, more than `most`, or no number.

    Args:
        name: as the user writes it: a flag, or a field of the config.
        value: what was given.
        least: the smallest value that works.
        most: the largest.
        hint: what the message ends with.
    """
    if most is None and not value >= least:
        raise InputError(f"{name}={value} must be at least {least}{hint}")
    if most is not None and not least <= value <= most:
        raise InputError(f"{name}={value} must lie between {least} and {most}{hint}")


def check_not_negative(name: str, value: float, *, hint: str = "") -> None:
    """Raises an InputError if `value` is less than 0, or no number; see `check_range`."""
    if not value >= 0:
        raise InputError(f"{name}={value} must not be negative{hint}")


def reason(error: OSError) -> str:
    """Returns what a command prints of a fault; a text of ours stands without its number."""
    return str(error) if error.filename or not error.strerror else error.strerror


def say(text: str) -> None:
    """Prints on stderr what ends the process; a log that can't be written is no reason to stay."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a failing disk raises in the block into an OSError that names `path`."""
    try:
        yield
    except (OSError, ValueError) as error:  # TensorStore, below Orbax, raises a ValueError
        found = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number is None:
            raise
        raise OSError(
            number,
            f"cannot write to {path} ({os.strerror(number)}): what was complete before stands; "
            "mend that, and give the same command again",
        ) from error


def check_writable(path: Path) -> None:
    """Raises an OSError where a folder can't be made or written at `path`; makes nothing."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        number = errno.EACCES if place.is_dir() else errno.ENOTDIR
        raise OSError(number, f"cannot write to {path} ({os.strerror(number)} at {place})")
