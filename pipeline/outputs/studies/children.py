"""The commands that a study starts one after another, and the signals that it passes on to them.

A signal reaches the study, which sends it to the command that runs: `pipeline.train` then saves and
leaves. After that the study starts nothing more. So Ctrl-C means the same as for a single run.
"""

import signal
import subprocess
from collections.abc import Sequence

from pipeline.runtime import exit_codes, signals

# A signal that comes before the command handles it ends the command: this is a stop, too.
STOPPED = {exit_codes.RETRY, exit_codes.INTERRUPTED, *(128 + number for number in signals.SIGNALS)}


class Children:
    """Starts commands, and forwards the signals of `signals.SIGNALS` while the block runs.

    Attributes:
        asked: number of the first signal; None before.
    """

    def __init__(self) -> None:
        """Starts nothing, and leaves all signals as they are."""
        self.asked: int | None = None
        self._unsent: list[int] = []
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> "Children":
        """Installs the handlers; what nohup ignores stays ignored."""
        ignored = {n for n in signals.FROM_TERMINALS if signal.getsignal(n) == signal.SIG_IGN}
        self._before = {
            number: signal.signal(number, self._note)
            for number in signals.SIGNALS
            if number not in ignored
        }
        return self

    def __exit__(self, *error: object) -> None:
        """Puts the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, arguments: Sequence[str]) -> int:
        """Runs a command to its end and returns its exit code, 128 + n if signal n ended it.

        After a signal it starts nothing, and returns the code of the stop.
        """
        if self.asked is not None:
            return self.code
        # In its own session: else Ctrl-C would reach it twice, from the terminal and from here.
        self._child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True)
        self._deliver()  # what came while the command was being started
        code = self._child.wait()
        self._child = None
        return code if code >= 0 else 128 - code

    @property
    def code(self) -> int:
        """Exit code of a study that the first signal stopped."""
        return exit_codes.INTERRUPTED if self.asked == signal.SIGINT else exit_codes.RETRY

    def _note(self, number: int, frame: object) -> None:
        self.asked = self.asked or number
        self._unsent.append(number)
        self._deliver()

    def _deliver(self) -> None:
        """Sends each signal once, also if another one comes meanwhile."""
        while self._child is not None and self._unsent:
            self._child.send_signal(self._unsent.pop(0))
