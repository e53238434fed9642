"""Why a command cannot go on: the user can repair an `InputError`, everything else is a fault."""

import contextlib
import re
import sys

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(ValueError):
    """A value from outside (config, flag, path, file) that cannot work.

    The message is one line that names the value received and the repair. Commands print it and
    exit with 2, before anything is compiled.
    """

    def __init__(self, text: str):
        """Keeps the text; line breaks and other control characters, as in names, are escaped."""
        super().__init__(CONTROL.sub(lambda c: c[0].encode("unicode_escape").decode(), text))


class TryAgain(Exception):
    """A state of the outside, such as a missing process, in which a command cannot go on now.

    The message is one line. Commands print it and exit with 75: the same command may work later.
    """


def check_range(
    name: str, value: float, least: float, most: float | None = None, *, hint: str = ""
) -> None:
    """Raises an InputError if `value` is less than `least`, more than `most`, or NaN.

    Args:
        name: as the user writes it: a flag, or a field of the config.
        value: what the user gave.
        least: the smallest value that works.
        most: the largest value that works; None means no limit.
        hint: text that ends the message.
    """
    if most is None and not value >= least:
        raise InputError(f"{name}={value} must be at least {least}{hint}")
    if most is not None and not least <= value <= most:
        raise InputError(f"{name}={value} must lie between {least} and {most}{hint}")


def check_not_negative(name: str, value: float, *, hint: str = "") -> None:
    """Raises an InputError if `value` is less than 0 or NaN; see `check_range`."""
    if not value >= 0:
        raise InputError(f"{name}={value} must not be negative{hint}")


def check_text(name: str, text: str) -> None:
    """Raises an InputError if the text, from outside, is not UTF-8, as paths may be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise InputError(
            f"{name} {shown} is not UTF-8, so no event file can name it: rename the file or folder"
        ) from None


def reason(error: BaseException) -> str:
    """Returns the line that a command prints for a fault; our own OSErrors need no number."""
    if isinstance(error, OSError):
        return str(error) if error.filename or not error.strerror else error.strerror
    return f"{type(error).__name__}: {error}".split("\n")[0]


def say(text: str) -> None:
    """Prints why the process ends to stderr; the process ends even if that cannot be written."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
