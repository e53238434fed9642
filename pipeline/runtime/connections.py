"""The connections between the processes of a run: their messages, and who may open one.

A message is a JSON object on one line of bounded length. While the processes meet (`rendezvous`),
anyone who reaches the port of process 0 may connect to it. So a caller is a stranger until its
first message has shown the run's token. What strangers send is bounded in number, length and time.
"""

import contextlib
import dataclasses
import ipaddress
import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

MESSAGE_BYTES = 65536
CALLER_BYTES = 512  # the first message: a number, a host's name of at most 255 bytes, the token
CALLER_SECONDS = 5.0  # a process of the run sends its first message when it connects
CALLERS = 64  # open connections without the token, beyond one for each missing process
TEXT_LENGTH = 4000  # characters; JSON needs at most 12 bytes for one
TYPES = {"process": int, "host": str, "token": str, "doing": str, "met": bool, "leave": bool}
TYPES |= {"end": str, "code": int}

Message = dict[str, Any]


class Lost(Exception):
    """The other end closed the connection, or sent what no process of the run sends."""


def listen(coordinator: str, num_processes: int, *, port: int = 0) -> socket.socket:
    """Returns a listening socket; a coordinator on loopback is reached from this machine only.

    Args:
        coordinator: host or IP address of process 0, as the other processes know it.
        num_processes: of the run.
        port: 0 means any that is free.
    """
    family = socket.AF_INET6 if ":" in coordinator else socket.AF_INET
    backlog = num_processes + 2 * CALLERS
    return socket.create_server((loopback(coordinator), port), family=family, backlog=backlog)


def loopback(host: str) -> str:
    """Returns the loopback address that a coordinator's host names, or "".

    A name other than localhost is not resolved: many machines map their own name to loopback.
    """
    if host == "localhost":
        return "127.0.0.1"
    with contextlib.suppress(ValueError):
        return host if ipaddress.ip_address(host).is_loopback else ""
    return ""


def _parse(line: bytes, limit: int) -> Message:
    try:
        message = json.loads(line) if len(line) <= limit else None
    except (ValueError, RecursionError):
        message = None
    if (
        not isinstance(message, dict)
        or any(type(message[key]) is not kind for key, kind in TYPES.items() if key in message)
        or ("end" in message) != ("code" in message)
        or not 0 <= message.get("code", 0) <= 255
    ):
        raise Lost("was lost after a malformed message")
    return message


@dataclasses.dataclass(eq=False)
class Peer:
    """The other end of a connection."""

    connection: socket.socket
    process: int | None  # None until it has shown its number and the token
    host: str = ""
    doing: str = "starting"
    heard: float = dataclasses.field(default_factory=time.monotonic)
    unread: bytes = b""
    leaving: bool = False

    def __post_init__(self) -> None:
        """Makes the connection one that never waits."""
        self.connection.setblocking(False)

    def __str__(self) -> str:
        """Names the process, and its host if it is known."""
        return f"process {self.process} on {self.host}" if self.host else f"process {self.process}"

    @property
    def number(self) -> int:
        """The number of a process that has shown it."""
        assert self.process is not None
        return self.process

    def send(self, message: Message) -> None:
        """Sends a message whose texts are cut so that the other end accepts its length."""
        cut = {
            key: value[:TEXT_LENGTH] if isinstance(value, str) else value
            for key, value in message.items()
        }
        # A lost or frozen process is detected by its silence, not here.
        with contextlib.suppress(OSError):
            self.connection.send(json.dumps(cut).encode() + b"\n")

    def note(self, message: Message) -> None:
        """Keeps what a message says of the other end, and when it came."""
        self.heard = time.monotonic()
        self.host = message.get("host", self.host)
        self.doing = message.get("doing", self.doing)

    def receive(self, limit: int = MESSAGE_BYTES) -> Iterator[Message]:
        """Yields the messages that one read completes; there may be none.

        Args:
            limit: of a message's length, in bytes.

        Raises:
            Lost: the connection is closed, or a message is malformed or too long.
        """
        try:
            data = self.connection.recv(limit)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise Lost("was lost")
        self.unread += data
        while b"\n" in self.unread:  # who stops reading here leaves the rest for the next call
            line, _, self.unread = self.unread.partition(b"\n")
            yield _parse(line, limit)
        if len(self.unread) > limit:
            raise Lost("was lost after a malformed message")


class Door:
    """The listening socket of process 0, and the callers that have not shown the token."""

    def __init__(self, listener: socket.socket, token: str, num_processes: int):
        """Args: the listening socket; what a process must send first; processes of the run."""
        listener.setblocking(False)
        self._listener, self._token = listener, token.encode()
        self._callers: list[Peer] = []
        self.missing = set(range(1, num_processes))

    def admit(self) -> Iterator[tuple[Peer, Iterator[Message]]]:
        """Accepts and drops callers; yields those that belong to the run, with further messages.

        It never waits, and what it does in one call is bounded.
        """
        bound = CALLERS + len(self.missing)
        # Half of the bound at a time leaves every caller two calls to show its token.
        with contextlib.suppress(OSError):  # none is waiting, or no file can be opened
            for _ in range(bound // 2):
                self._callers.append(Peer(self._listener.accept()[0], None))
        for caller in list(self._callers):
            now = time.monotonic()  # before the read: a pause here must not count as silence
            messages = caller.receive(CALLER_BYTES)
            try:
                hello = next(messages, None)
            except Lost:
                self._drop(caller)
                continue
            if hello is None:
                if now - caller.heard > CALLER_SECONDS:
                    self._drop(caller)
            elif self._belongs(hello):
                self._callers.remove(caller)
                self.missing.remove(hello["process"])
                caller.process = hello["process"]
                caller.note(hello)
                yield caller, messages
            else:
                self._drop(caller)
        for caller in self._callers[: max(len(self._callers) - bound, 0)]:
            self._drop(caller)

    def close(self) -> None:
        """Closes the listening socket and the connections of all strangers."""
        for caller in list(self._callers):
            self._drop(caller)
        self._listener.close()

    def _belongs(self, hello: Message) -> bool:
        token = hello.get("token", "").encode(errors="surrogatepass")
        right = secrets.compare_digest(token, self._token)
        return right and "host" in hello and hello.get("process") in self.missing

    def _drop(self, caller: Peer) -> None:
        caller.connection.close()
        self._callers.remove(caller)
