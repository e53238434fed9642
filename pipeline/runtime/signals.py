"""How a process learns that it was asked to stop: SIGTERM, SIGUSR1 or Ctrl-C."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from pipeline.runtime import exit_codes

REPEAT_SECONDS = 5.0  # in which a second SIGTERM or SIGUSR1 repeats the first
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM, SIGUSR1 (as SLURM sends it) and Ctrl-C; the loop asks between steps.

    Installed before the slow imports, so that a signal during start-up counts as well. A thread
    hears of signals from the C level, also while the main thread compiles or waits for a device. A
    second Ctrl-C, another signal 5 s after the first, or the end of the grace period ends the
    process at once; checkpoints commit atomically, so nothing is damaged.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        """Installs the handlers; `grace_seconds` may be set later, 0 is no limit."""
        self.signal: int | None = None
        self.grace_seconds = grace_seconds
        # Told why and with which code, where the grace period ends the process.
        self.on_end: Callable[[str, int], object] = lambda reason, code: None
        heard, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: None)  # else it would end the process
        threading.Thread(target=self._watch, args=(heard,), name="signals", daemon=True).start()

    def _watch(self, heard: socket.socket) -> None:
        number = self._next(heard)
        # Before the flag is seen: the process may leave right after.
        os.write(
            2, f"{signal.Signals(number).name}: saving after this step, then leaving\n".encode()
        )
        self.signal, began = number, time.monotonic()
        heard.settimeout(0.2)  # the grace period may become known meanwhile
        while not self.grace_seconds or time.monotonic() - began < self.grace_seconds:
            try:
                number = self._next(heard)
            except TimeoutError:
                continue
            # SLURM sends SIGTERM twice, to the task and through srun; a person means it.
            if number == signal.SIGINT or time.monotonic() - began > REPEAT_SECONDS:
                os.write(2, b"second signal: leaving at once; the last checkpoint stands\n")
                os._exit(self.exit_code)
        limit = f"config.grace_seconds={self.grace_seconds:g} are over"
        os.write(2, f"{limit}: leaving at once; the last checkpoint stands\n".encode())
        self.on_end(f"{limit} there, and it left without its save", self.exit_code)
        os._exit(self.exit_code)

    def _next(self, heard: socket.socket) -> int:
        while (number := heard.recv(1)[0]) not in SIGNALS:
            pass
        return number

    @property
    def exit_code(self) -> int:
        """Exit code for this stop; also right where another process got the signal."""
        return exit_codes.INTERRUPTED if self.signal == signal.SIGINT else exit_codes.RETRY
