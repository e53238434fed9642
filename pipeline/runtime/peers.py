"""Whether all processes live: if one is lost, fails or stalls, the others learn it in seconds.

Every process holds a connection to process 0, on which both sides say each second what they are
doing. The kernel closes the connections of a killed process. A frozen process, or one whose machine
is lost, falls silent. In both cases process 0 tells all others, and each prints the line and
leaves. Otherwise they would wait in their next collective, for ever or until the runtime aborts
without naming the lost process.
"""

import dataclasses
import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.runtime import errors, exit_codes

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 25.0  # longer than any pause of a live process, shorter than launchers wait
LEAVE_SECONDS = 30.0  # how long a process that has finished waits for the others
KEY = "pipeline/peers"


def alone() -> "Peers":
    """Returns the peers of a single process: there are none."""
    return Peers(0, 1, None, "")


def connect(store: Any, *, process: int, num_processes: int, coordinator: str) -> "Peers":
    """Connects the processes of a run.

    Args:
        store: a key-value store that all of them share, such as that of `jax.distributed`; it has
            `key_value_set` and `blocking_key_value_get`.
        process: number of this process, from 0.
        num_processes: of the run.
        coordinator: host:port of process 0; only the host is used.

    Raises:
        OSError: process 0 cannot be reached.
    """
    if process == 0:
        listener = socket.create_server(("", 0), backlog=num_processes)
        token = secrets.token_hex(16)
        address = {"port": listener.getsockname()[1], "token": token}
        store.key_value_set(KEY, json.dumps(address))
        return Peers(0, num_processes, listener, token)
    host = coordinator.rpartition(":")[0].strip("[]")
    address = json.loads(store.blocking_key_value_get(KEY, 300_000))
    try:
        connection = socket.create_connection((host, address["port"]), timeout=30)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot reach process 0 at {host}:{address['port']} ({error.strerror or error}): the "
            "hosts of a run must be able to connect on every port above 1023",
        ) from error
    return Peers(process, num_processes, connection, address["token"])


@dataclasses.dataclass
class _Peer:
    """The other end of a connection."""

    connection: socket.socket
    process: int | None  # None until it has shown its number and the token
    host: str = ""
    doing: str = "starting"
    heard: float = dataclasses.field(default_factory=time.monotonic)
    unread: bytes = b""
    leaving: bool = False

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.host else f"process {self.process}"

    def send(self, message: dict[str, Any]) -> None:
        # A lost or frozen process is detected by its silence, not here.
        try:
            self.connection.send(json.dumps(message).encode() + b"\n")
        except OSError:
            return


class Peers:
    """The connections of one process, which a thread watches.

    Attributes:
        doing: what this process does; the others name it if this process is lost.
        on_end: called with the line and the exit code if another process ends the run; the default
            prints the line and exits.
    """

    def __init__(
        self, process: int, num_processes: int, endpoint: socket.socket | None, token: str
    ):
        """Starts the watching thread.

        Args:
            process: number of this process.
            num_processes: of the run.
            endpoint: the listening socket of process 0, or the connection to it; None for a single
                process.
            token: what another process must send first. It keeps strangers out of the connection.
        """
        self.doing = "starting"
        self.on_end: Callable[[str, int], None] = _leave_at_once
        self._process, self._token = process, token
        self._missing = set(range(1, num_processes)) if process == 0 else set()
        self._peers: list[_Peer] = []
        self._message: dict[str, Any] | None = None  # what the main thread wants sent: leave or end
        self._said, self._left = threading.Event(), threading.Event()
        self._over = endpoint is None
        if endpoint is None:
            return
        self._selector = selectors.DefaultSelector()
        if process == 0:
            endpoint.setblocking(False)
            self._selector.register(endpoint, selectors.EVENT_READ)
        else:
            self._add(endpoint, 0).send(
                {"process": process, "host": socket.gethostname(), "token": token}
            )
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def fail(self, reason: str, code: int = exit_codes.FAULT) -> None:
        """Tells the others why this process leaves, so that they leave with `code`."""
        if self._over:
            return
        self._message = {"end": f"{self}: {reason}", "code": code}
        self._said.wait(2 * BEAT_SECONDS)  # the watching thread sends it

    def __str__(self) -> str:
        """Names this process, its host and what it does."""
        return f"process {self._process} on {socket.gethostname()}, {self.doing}"

    def leave(self) -> None:
        """Waits until all processes are ready to leave, so that none counts as lost."""
        if self._over:
            return
        self._message = {"leave": True}
        self._left.wait(LEAVE_SECONDS)

    def settle(self) -> None:
        """Waits a moment for news of a lost process; with such news it does not return.

        Call it after a collective failed, before the failure is blamed on this process.
        """
        if not self._over:
            time.sleep(3 * BEAT_SECONDS)

    def _watch(self) -> None:
        began = beat = time.monotonic()
        while not self._left.is_set():
            # Messages come first: they may end a silence.
            for key, _ in self._selector.select(timeout=0.1):
                if key.data is None:
                    self._add(key.fileobj.accept()[0], None)  # type: ignore[union-attr]
                else:
                    self._read(key.data)
            now = time.monotonic()
            if now - beat > BEAT_SECONDS:
                beat = now
                for peer in self._peers:
                    peer.send({"doing": self.doing})
            for peer in self._peers:
                if now - peer.heard > SILENCE_SECONDS and not peer.leaving:
                    text = f"{peer} has been silent for {SILENCE_SECONDS:.0f} s"
                    self._end(f"{text}; it was last {peer.doing}", exit_codes.RETRY)
            if self._missing and now - began > SILENCE_SECONDS:
                text = f"process {min(self._missing)} never connected to process 0"
                self._end(text, exit_codes.FAULT)
            self._say()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _say(self) -> None:
        """Sends what the main thread wants sent; process 0 says "leave" only after all others."""
        if self._message is None:
            return
        if "end" in self._message or self._process:
            if not self._said.is_set():
                for peer in self._peers:
                    peer.send(self._message)
                self._said.set()
        elif not self._missing and all(peer.leaving for peer in self._peers):
            for peer in self._peers:
                peer.send(self._message)
            self._left.set()

    def _add(self, connection: socket.socket, process: int | None) -> _Peer:
        connection.setblocking(False)
        peer = _Peer(connection, process)
        self._peers.append(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)
        return peer

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, peer.unread = (peer.unread + data).split(b"\n")
        for line in lines:
            self._hear(peer, line)
        if not data:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            self._peers.remove(peer)
            if self._process and self._message and "leave" in self._message:
                self._left.set()  # process 0 leaves only after all are ready
            elif peer.process is not None and not peer.leaving:
                self._end(f"{peer} was lost; it was last {peer.doing}", exit_codes.FAULT)

    def _hear(self, peer: _Peer, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if peer.process is None:
            if message.get("token") == self._token:
                peer.process, peer.host = message["process"], message["host"]
                self._missing.discard(message["process"])
                peer.send({"host": socket.gethostname()})
            return
        peer.heard = time.monotonic()
        peer.host = message.get("host", peer.host)
        peer.doing = message.get("doing", peer.doing)
        if "leave" in message:
            peer.leaving = True
            if self._process:  # process 0 sends it only after all are ready
                self._left.set()
        if "end" in message:
            self._end(message["end"], message["code"])

    def _end(self, text: str, code: int) -> None:
        # A process that has reported its own failure keeps its own exit code.
        if self._message is None or "leave" in self._message:
            for peer in self._peers:
                peer.send({"end": text, "code": code})
            self.on_end(text, code)


def _leave_at_once(text: str, code: int) -> None:
    errors.say(f"error: {text}")
    os._exit(code)
