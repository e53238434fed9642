"""Whether all processes live: if one is lost, fails or stalls, the others learn it in seconds.

Every process holds a connection to process 0, on which both sides say each second what they are
doing. The kernel closes the connections of a killed process. A frozen process, or one whose machine
is lost, falls silent. In both cases process 0 tells all others, and each prints the line and
leaves. Otherwise they would wait in a collective, for ever or until the runtime aborts unexplained.

The connections come from `rendezvous`, and no new one is accepted: nobody else can say anything.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from pipeline.runtime import connections, errors, exit_codes

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 25.0  # longer than any pause of a live process, shorter than launchers wait
LOOK_SECONDS = 0.1  # between two looks at what the main thread wants sent
PAUSE_SECONDS = 2.0  # a longer one, as after Ctrl-Z, counts as no silence of others
# These never come from another process's death.
OWN_ERRORS = (errors.InputError, FloatingPointError, KeyboardInterrupt, SystemExit)
REPORT_SECONDS = 10.0  # how long the main thread may take to report another thread's error
LEAVE_SECONDS = 30.0  # how long a process that has finished waits for the others


def alone() -> "Peers":
    """Returns the peers of a single process: there are none."""
    return Peers(0, [])


class Peers:
    """The connections of one process, which a thread watches.

    Attributes:
        doing: what this process does; the others name it if this process is lost.
        on_end: receives the line and exit code with which others end the run; prints it and exits.
        code_of_loss: with which this process ends if another is lost.
    """

    def __init__(
        self,
        process: int,
        others: Sequence[connections.Peer],
        *,
        doing: str = "starting",
        code_of_loss: int = exit_codes.FAULT,
    ):
        """Starts the watching thread, which may learn of a loss at once.

        Args:
            process: number of this process.
            others: process 0's connections to all others, or the only one to process 0; those of
                a single process are none.
            doing: what this process does first.
            code_of_loss: as the attribute.
        """
        self.doing = doing
        self.on_end: Callable[[str, int], None] = _leave_at_once
        self.code_of_loss = code_of_loss
        self._process = process
        self._peers = list(others)
        # What the main thread wants sent: leave or end.
        self._message: connections.Message | None = None
        self._said, self._left = threading.Event(), threading.Event()
        self._over = not others
        if self._over:
            return
        self._selector = selectors.DefaultSelector()
        for peer in self._peers:
            peer.heard = time.monotonic()
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    @property
    def exist(self) -> bool:
        """Whether there are other processes."""
        return not self._over

    def fail(self, reason: str, code: int = exit_codes.FAULT) -> None:
        """Tells the others why this process leaves, so that they leave with `code`."""
        if not self._over:
            self._message = {"end": f"{self}: {reason}", "code": code}
            self._said.wait(2 * BEAT_SECONDS)  # the watching thread sends it
            # Process 0 holds JAX's service. If it left first, the others' JAX would say so, too.
            end = time.monotonic() + (0.0 if self._process else BEAT_SECONDS)
            while self._peers and time.monotonic() < end:
                time.sleep(LOOK_SECONDS / 10)

    def fail_soon(self, error: Exception) -> None:
        """Reports an error of another thread, and ends all, if the main thread does not do it.

        The main thread may wait for a process that will never come: one that waits for this one.
        """

        def report() -> None:
            if self._message is None:
                self.fail(text := errors.reason(error))
                self.on_end(text, exit_codes.FAULT)

        if not self._over:
            timer = threading.Timer(REPORT_SECONDS, report)
            timer.daemon = True
            timer.start()

    def __str__(self) -> str:
        """Names this process, its host and what it does."""
        return f"process {self._process} on {socket.gethostname()}, {self.doing}"

    def leave(self) -> None:
        """Waits until all processes are ready to leave, so that none counts as lost."""
        if not self._over:
            self._message = {"leave": True}
            self._left.wait(LEAVE_SECONDS)
            self._over = True

    def settle(self, error: BaseException) -> None:
        """Waits before this process reports `error`: a lost process may be its true cause.

        What fails if another process dies, such as a collective or a save, raises errors of many
        types. Meanwhile the watching thread learns of the loss, names it and ends this process.
        """
        if not self._over and not isinstance(error, OWN_ERRORS):
            time.sleep(3 * BEAT_SECONDS)

    def _watch(self) -> None:
        beat = looked = time.monotonic()
        while not self._left.is_set():
            # Messages come first: they may end a silence.
            for key, _ in self._selector.select(timeout=LOOK_SECONDS):
                self._read(key.data, key.data.receive())
            now = time.monotonic()
            # While this process was stopped, it heard nobody.
            if (paused := now - looked) > PAUSE_SECONDS:
                for peer in self._peers:
                    peer.heard += paused
            looked = now
            if now - beat > BEAT_SECONDS:
                beat = now
                self._tell({"doing": self.doing})
            for peer in self._peers:
                if now - peer.heard > SILENCE_SECONDS and not peer.leaving:
                    text = f"{peer} has been silent for {SILENCE_SECONDS:.0f} s"
                    self._end(f"{text}; it was last {peer.doing}", exit_codes.RETRY)
            self._say()
        for peer in self._peers:
            peer.connection.close()
        self._selector.close()

    def _say(self) -> None:
        """Sends what the main thread wants sent; process 0 says "leave" only after all others."""
        if self._message is None:
            return
        if "end" in self._message or self._process:
            if not self._said.is_set():
                self._tell(self._message)
                self._said.set()
        elif all(peer.leaving for peer in self._peers):
            self._tell(self._message)
            self._left.set()

    def _tell(self, message: connections.Message) -> None:
        for peer in self._peers:
            peer.send(message)

    def _read(self, peer: connections.Peer, messages: Iterator[connections.Message]) -> None:
        try:
            for message in messages:
                self._hear(peer, message)
        except connections.Lost as loss:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            self._peers.remove(peer)
            if self._process and self._message and "leave" in self._message:
                self._left.set()  # process 0 leaves only after all are ready
            elif not peer.leaving:
                self._end(f"{peer} {loss}; it was last {peer.doing}", self.code_of_loss)

    def _hear(self, peer: connections.Peer, message: connections.Message) -> None:
        peer.note(message)
        if "leave" in message:
            peer.leaving = True
            if self._process:  # process 0 sends it only after all are ready
                self._left.set()
        if "end" in message:
            self._end(message["end"], message["code"])

    def _end(self, text: str, code: int) -> None:
        # A process that has reported its own failure keeps its own exit code.
        if self._message is None or "leave" in self._message:
            self._tell({"end": text, "code": code})
            self.on_end(text, code)


def _leave_at_once(text: str, code: int) -> None:
    errors.say(f"error: {text}")
    os._exit(code)
