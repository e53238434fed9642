"""Stop requests: a signal, such as SIGTERM or Ctrl-C, asks the process to save and leave."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from pipeline.runtime import exit_codes, output

REPEAT_SECONDS = 5.0  # until then another signal but Ctrl-C is the same stop request
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# A terminal sends these two. nohup, and a shell for its background, start a process that ignores
# them, and it must go on doing so.
FROM_TERMINALS = (signal.SIGHUP, signal.SIGQUIT)


class StopRequest:
    """Notes the first signal of `SIGNALS`; the loop reads it between steps.

    SLURM can send SIGUSR1, and a closed terminal sends SIGHUP. Each counts as SIGTERM does, but
    Ctrl-C has its own exit code.

    It is installed before the slow imports, so that it notes a signal during start-up. A thread
    receives signals from Python's C-level handler, even while the main thread compiles or waits
    for a device. A second Ctrl-C, another signal more than 5 s after the first, or the end of the
    grace period ends the process at once. Checkpoints commit atomically, so this damages nothing.

    Attributes:
        signal: number of the first signal; None before.
        grace_seconds: time from the first signal until the process ends; 0 means no limit.
        on_end: called with the reason and the exit code before this ends the process.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        """Installs the handlers; `grace_seconds` may be set later."""
        self.signal: int | None = None
        self.grace_seconds = grace_seconds
        self.on_end: Callable[[str, int], object] = lambda reason, code: None
        heard, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            if number in FROM_TERMINALS and signal.getsignal(number) == signal.SIG_IGN:
                continue
            signal.signal(number, lambda number, frame: None)  # the default would end the process
        threading.Thread(target=self._watch, args=(heard,), name="signals", daemon=True).start()

    def _watch(self, heard: socket.socket) -> None:
        number = self._next(heard)
        # The line must precede the flag: the process may leave as soon as the loop sees it.
        _say(f"{signal.Signals(number).name}: saving after the steps under way, then leaving")
        self.signal, began = number, time.monotonic()
        heard.settimeout(0.2)  # the config may set grace_seconds after the signal came
        while not self.grace_seconds or time.monotonic() - began < self.grace_seconds:
            try:
                number = self._next(heard)
            except TimeoutError:
                continue
            # SLURM sends SIGTERM twice, to the task and through srun. A second Ctrl-C comes from a
            # person who wants the process to end now.
            if number == signal.SIGINT or time.monotonic() - began > REPEAT_SECONDS:
                _say("second signal: leaving at once; the last checkpoint stands")
                self._leave("a second signal came")
        limit = f"config.grace_seconds={self.grace_seconds:g} are over"
        _say(f"{limit}: leaving at once; the last checkpoint stands")
        self._leave(limit)

    def _leave(self, reason: str) -> None:
        self.on_end(f"{reason} there, and it left without its save", self.exit_code)
        os._exit(self.exit_code)

    def _next(self, heard: socket.socket) -> int:
        while (number := heard.recv(1)[0]) not in SIGNALS:
            pass
        return number

    @property
    def exit_code(self) -> int:
        """Exit code for this stop; also right if another process received the signal."""
        return exit_codes.INTERRUPTED if self.signal == signal.SIGINT else exit_codes.RETRY


def _say(text: str) -> None:
    """Writes a line to stderr, past Python's locks.

    A closed terminal must not end the thread, and one that nobody reads must not hold it up.
    """
    with contextlib.suppress(OSError):
        if output.is_writable(2, 1.0):
            os.write(2, f"{text}\n".encode())
