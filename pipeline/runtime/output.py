"""stdout and stderr that a command survives: when one cannot be written, it goes silent.

The reader of a pipe may leave (`| head`), a disk may fill up, a terminal may be closed, and
`>&-` starts a process without stdout. None of these may end a run that has hours of work to save,
nor a command that has files to write. Nor may a reader that has stopped (`| less`, Ctrl-S) hold up
a run: what it does not take in time is dropped.
"""

import contextlib
import errno
import functools
import math
import os
import select
import sys
from typing import Any, Optional, TextIO

PIECE = 1024  # characters; they fit into what a pipe takes at once if it is writable
PATIENCE_SECONDS = 5.0  # for a reader that has stopped


def is_writable(descriptor: int, seconds: float) -> bool:
    """Says whether 4 kB can be written within `seconds` without waiting for a reader."""
    look = select.poll()
    look.register(descriptor, select.POLLOUT)
    return bool(look.poll(1000 * seconds))


class Stream:
    """Writes to a stream until that fails, and then to nowhere; it never raises an error."""

    def __init__(
        self,
        stream: TextIO | None,
        *,
        complain: Optional["Stream"] = None,
        noun: str = "",
        patience: float = math.inf,
    ) -> None:
        """Wraps the stream.

        Args:
            stream: where to write; None, as `sys.stdout` is after `>&-`, means nowhere.
            complain: gets one line when the stream fails.
            noun: what goes on, for that line.
            patience: seconds that a write waits for a reader; then texts are dropped until it reads
                again.
        """
        self._complain, self._noun = complain, noun
        self._patience, self._dropping = patience, False
        self.full = False  # whether something was lost that its reader still waits for
        if stream is None:
            self._silence("it is closed")
        else:
            self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text; returns its length, as files do."""
        if math.isinf(self._patience):
            self._write(text)
            return len(text)
        for start in range(0, len(text), PIECE):
            if self._is_read():
                self._write(text[start : start + PIECE])
                self.flush()  # else a later flush might wait
        return len(text)

    def _is_read(self) -> bool:
        """Says whether the reader takes a piece; tells it when texts before were dropped."""
        try:
            ready = is_writable(self._stream.fileno(), 0.0 if self._dropping else self._patience)
        except (OSError, ValueError):
            return True  # no descriptor: it is no pipe, or the write will say what is wrong
        if ready and self._dropping:
            self._write("\n… what was printed while nobody read this is left out …\n")
        self._dropping = not ready
        return ready

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a log in ASCII or Latin-1
            encoding = self._stream.encoding
            self._write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # a closed file raises a ValueError
            self._fail(error)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        """Everything else, such as `isatty` and `encoding`, is the stream's own."""
        return getattr(self._stream, name)

    def _fail(self, error: Exception) -> None:
        self.full = isinstance(error, OSError) and not isinstance(error, BrokenPipeError)
        # What is still in the stream's buffer would raise once more when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(_nowhere().fileno(), self._stream.fileno())
        self._silence(getattr(error, "strerror", None) or str(error))

    def _silence(self, reason: str) -> None:
        self._stream = _nowhere()
        if self._complain is not None:
            complain, self._complain = self._complain, None
            complain.write(
                f"warning: stdout cannot be written ({reason}): the {self._noun} goes on\n"
            )
            complain.flush()


@functools.cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w")  # it stays open to the end


def outlast(noun: str = "run", *, patience: float = math.inf) -> None:
    """Lets this process go on when its stdout or stderr fails, or is missing from the start.

    This must precede the first file or socket that stays open.

    Args:
        noun: what goes on, for the line that says so.
        patience: seconds that it waits for a reader that has stopped; see `Stream`.
    """
    # The next file would get a missing descriptor, and what is printed would damage it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if not isinstance(sys.stderr, Stream):
        sys.stderr = Stream(sys.stderr, patience=patience)
    if not isinstance(sys.stdout, Stream):
        sys.stdout = Stream(sys.stdout, complain=sys.stderr, noun=noun, patience=patience)


def check_kept(instead: str) -> None:
    """Raises an OSError if a disk had no room for what was printed.

    A reader that left had enough of it, and a closed stdout was asked for.

    Args:
        instead: how to keep what was printed.
    """
    sys.stdout.flush()
    if getattr(sys.stdout, "full", False):
        raise OSError(errno.ENOSPC, f"what was printed is lost: {instead}")
