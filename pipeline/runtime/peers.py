"""Whether all processes live: if one is lost, fails or stalls, the others learn it in seconds.

Every process holds a connection to process 0, on which both sides say each second what they are
doing. The kernel closes the connections of a killed process. A frozen process, or one whose machine
is lost, falls silent. In both cases process 0 tells all others, and each prints the line and
leaves. Otherwise they would wait in a collective, for ever or until the runtime aborts unexplained.
"""

import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.runtime import connections, errors, exit_codes

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 25.0  # longer than any pause of a live process, shorter than launchers wait
LOOK_SECONDS = 0.1  # between two looks at new callers
LEAVE_SECONDS = 30.0  # how long a process that has finished waits for the others
KEY = "pipeline/peers"


def alone() -> "Peers":
    """Returns the peers of a single process: there are none."""
    return Peers(0, 1, None, "")


def connect(store: Any, *, process: int, num_processes: int, coordinator: str) -> "Peers":
    """Connects the processes of a run.

    Args:
        store: they share its `key_value_set` and `blocking_key_value_get`, as `jax.distributed`'s.
        process: number of this process, from 0.
        num_processes: of the run.
        coordinator: host:port of process 0, which listens on loopback only if the host is loopback.

    Raises:
        OSError: process 0 cannot be reached.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    if process == 0:
        listener = connections.listen(host, num_processes)
        token = secrets.token_hex(16)
        port = listener.getsockname()[1]
        store.key_value_set(KEY, json.dumps({"port": port, "token": token}))
        return Peers(0, num_processes, listener, token)
    address = json.loads(store.blocking_key_value_get(KEY, 300_000))
    connection = connections.reach(host, address["port"])
    return Peers(process, num_processes, connection, address["token"])


class Peers:
    """The connections of one process, which a thread watches.

    Attributes:
        doing: what this process does; the others name it if this process is lost.
        on_end: receives the line and exit code with which others end the run; prints it and exits.
    """

    def __init__(
        self, process: int, num_processes: int, endpoint: socket.socket | None, token: str
    ):
        """Starts the watching thread.

        Args:
            process: number of this process.
            num_processes: of the run.
            endpoint: process 0's listening socket, or the connection to it; None without others.
            token: what another process must send first.
        """
        self.doing = "starting"
        self.on_end: Callable[[str, int], None] = _leave_at_once
        self._process = process
        self._door: connections.Door | None = None
        self._peers: list[connections.Peer] = []
        self._message: connections.Message | None = (
            None  # what the main thread wants sent: leave or end
        )
        self._said, self._left = threading.Event(), threading.Event()
        self._over = endpoint is None
        if endpoint is None:
            return
        self._selector = selectors.DefaultSelector()
        if process == 0:
            self._door = connections.Door(endpoint, token, num_processes)
        else:
            first = {"process": process, "host": socket.gethostname(), "token": token}
            self._add(connections.Peer(endpoint, 0), first)
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def fail(self, reason: str, code: int = exit_codes.FAULT) -> None:
        """Tells the others why this process leaves, so that they leave with `code`."""
        if not self._over:
            self._message = {"end": f"{self}: {reason}", "code": code}
            self._said.wait(2 * BEAT_SECONDS)  # the watching thread sends it

    def __str__(self) -> str:
        """Names this process, its host and what it does."""
        return f"process {self._process} on {socket.gethostname()}, {self.doing}"

    def leave(self) -> None:
        """Waits until all processes are ready to leave, so that none counts as lost."""
        if not self._over:
            self._message = {"leave": True}
            self._left.wait(LEAVE_SECONDS)

    def settle(self) -> None:
        """Waits before a failed collective is blamed on this process; another may be lost first."""
        if not self._over:
            time.sleep(3 * BEAT_SECONDS)

    def _watch(self) -> None:
        began = beat = looked = time.monotonic()
        while not self._left.is_set():
            # Messages come first: they may end a silence.
            for key, _ in self._selector.select(timeout=LOOK_SECONDS):
                self._read(key.data, key.data.receive())
            now = time.monotonic()
            # Callers are polled, so that strangers can neither wake nor delay this thread.
            if self._door and now - looked >= LOOK_SECONDS:
                looked = now
                for peer, messages in self._door.admit():
                    self._add(peer, {"host": socket.gethostname()})
                    self._read(peer, messages)
            if now - beat > BEAT_SECONDS:
                beat = now
                self._tell({"doing": self.doing})
            for peer in self._peers:
                if now - peer.heard > SILENCE_SECONDS and not peer.leaving:
                    text = f"{peer} has been silent for {SILENCE_SECONDS:.0f} s"
                    self._end(f"{text}; it was last {peer.doing}", exit_codes.RETRY)
            if self._door and self._door.missing and now - began > SILENCE_SECONDS:
                text = f"process {min(self._door.missing)} never connected to process 0"
                self._end(text, exit_codes.FAULT)
            self._say()
        for peer in self._peers:
            peer.connection.close()
        self._selector.close()
        if self._door:
            self._door.close()

    def _say(self) -> None:
        """Sends what the main thread wants sent; process 0 says "leave" only after all others."""
        if self._message is None:
            return
        if "end" in self._message or self._process:
            if not self._said.is_set():
                self._tell(self._message)
                self._said.set()
        elif self._door and not self._door.missing and all(peer.leaving for peer in self._peers):
            self._tell(self._message)
            self._left.set()

    def _tell(self, message: connections.Message) -> None:
        for peer in self._peers:
            peer.send(message)

    def _add(self, peer: connections.Peer, first: connections.Message) -> None:
        self._peers.append(peer)
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        peer.send(first)

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
                self._end(f"{peer} {loss}; it was last {peer.doing}", exit_codes.FAULT)

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
