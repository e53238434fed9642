"""stdout and stderr that a long run survives: when one cannot be written, it goes silent.

The reader of a pipe may leave (`| head`), a disk may fill up, a terminal may be closed, and
`>&-` starts a process without stdout. None of these may end a run that has hours of work to save.
"""

import os
import sys
from typing import Any, Optional, TextIO


class Stream:
    """Writes to a stream until that fails, and then to nowhere; it never raises an error."""

    def __init__(self, stream: TextIO | None, *, complain: Optional["Stream"] = None) -> None:
        """Wraps the stream.

        Args:
            stream: where to write; None, as `sys.stdout` is after `>&-`, means nowhere.
            complain: gets one line when the stream fails.
        """
        self._complain = complain
        if stream is None:
            self._silence("it is closed")
        else:
            self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text; returns its length, as files do."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a log in ASCII or Latin-1
            encoding = self._stream.encoding
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # a closed file raises a ValueError
            self._silence(getattr(error, "strerror", None) or str(error))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._silence(getattr(error, "strerror", None) or str(error))

    def __getattr__(self, name: str) -> Any:
        """Everything else, such as `isatty` and `encoding`, is the stream's own."""
        return getattr(self._stream, name)

    def _silence(self, reason: str) -> None:
        self._stream = open(os.devnull, "w")  # noqa: SIM115  # it stays open to the end
        if self._complain is not None:
            complain, self._complain = self._complain, None
            complain.write(f"warning: stdout cannot be written ({reason}): the run goes on\n")
            complain.flush()


def outlast() -> None:
    """Lets this process go on when its stdout or stderr fails, or is missing from the start.

    This must precede the first file or socket that stays open.
    """
    # The next file would get a missing descriptor, and what is printed would damage it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if not isinstance(sys.stderr, Stream):
        sys.stderr = Stream(sys.stderr)
    if not isinstance(sys.stdout, Stream):
        sys.stdout = Stream(sys.stdout, complain=sys.stderr)
