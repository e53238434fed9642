"""The processes of a run meet before JAX connects them, so that a missing one is named.

JAX would wait for it in silence, deaf to signals, and then abort with a stack. So all processes
first call process 0 at the coordinator's port. When all are there, this port closes, and JAX's own
service opens it. The connections stay: they are those of `peers`.
"""

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pipeline.runtime import connections, errors, exit_codes, throttle

LOOK_SECONDS = 0.05  # between two looks at callers, answers and stop requests
CALL_SECONDS = 5.0  # for one try to reach process 0
BEAT_SECONDS = 1.0  # between two messages of process 0 to those that wait with it
SILENCE_SECONDS = 25.0  # after which a process 0 that had answered is called again
SAY_SECONDS = 5.0  # after which a line says for whom the run waits


class Place(NamedTuple):
    """Where a process is among those of its run."""

    coordinator: str  # host:port of process 0
    num_processes: int
    process: int  # from 0
    local_device_ids: tuple[int, ...] | None = None  # None: all devices of the host

    @property
    def address(self) -> tuple[str, int]:
        """Returns the coordinator's host and port."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def bound(self) -> str | None:
        """Returns where JAX's coordinator listens; None: on all addresses of its machine."""
        host = connections.loopback(self.address[0])
        return self.coordinator.replace("localhost", host) if host else None


class Patience:
    """How long a process waits for the others; a stop request ends it."""

    def __init__(self, seconds: float, stopped: Callable[[], bool]):
        """Starts to wait; `stopped` says whether this process has a stop request."""
        self._seconds, self._stopped = seconds, stopped
        self._began, self._said = time.monotonic(), False

    def check(self, what: str, *, limited: bool = True) -> None:
        """Returns after a short sleep.

        Args:
            what: says who is missing, for the error line.
            limited: False if another process counts the time.

        Raises:
            TryAgain: the time is over, or this process has a stop request.
        """
        waited = time.monotonic() - self._began
        if self._stopped():
            raise errors.TryAgain(f"stopped before the run began: {what}")
        if limited and waited > self._seconds:
            raise errors.TryAgain(
                f"{what} after {waited:.0f} s: each process needs the same --coordinator and "
                "--num_processes and its own --process_id, or SLURM's srun; --join_seconds waits "
                "longer, --distributed=off runs one process alone"
            )
        if limited and waited > SAY_SECONDS and not self._said:
            self._said = True
            errors.say(f"waiting (up to --join_seconds={self._seconds:g}): {what}")
        time.sleep(LOOK_SECONDS)


def meet(
    place: Place, *, seconds: float, stopped: Callable[[], bool] = lambda: False
) -> list[connections.Peer]:
    """Waits until all processes are there; returns connections: all of process 0, or that to it.

    Args:
        place: of this process.
        seconds: the longest wait for a process that is missing.
        stopped: says whether this process should stop waiting.

    Raises:
        TryAgain: a process is missing, which the line names; or this process was stopped.
        OSError: process 0 cannot listen at its port.
    """
    patience = Patience(seconds, stopped)
    return [_call(place, patience)] if place.process else _gather(place, patience)


def _gather(place: Place, patience: Patience) -> list[connections.Peer]:
    """Receives all other processes; one whose connection closes is missing again."""
    door = connections.Door(_listen(place, patience), word(place), place.num_processes)
    present: dict[int, connections.Peer] = {}
    beat = throttle.Throttle(BEAT_SECONDS)
    try:
        while door.missing:
            what = _missing(door.missing, place.num_processes)
            patience.check(what)
            for peer, _ in door.admit():
                peer.send({"host": socket.gethostname(), "doing": what})
                present[peer.number] = peer
            for number, peer in list(present.items()):
                try:
                    list(peer.receive())
                except connections.Lost:
                    peer.connection.close()
                    del present[number]
                    door.missing.add(number)
            if beat.due():
                for peer in present.values():
                    peer.send({"doing": what})
    except errors.TryAgain as error:
        for peer in present.values():  # all processes name the same one
            peer.send({"end": str(error), "code": exit_codes.RETRY})
            peer.connection.close()
        raise
    finally:
        door.close()  # JAX's service comes to this port
    for peer in present.values():
        peer.send({"met": True})
    return list(present.values())


def _listen(place: Place, patience: Patience) -> socket.socket:
    """Returns the listening socket; an earlier start of the run may hold the port for a while."""
    host, port = place.address
    if own := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):  # behind a port that is forwarded
        host, port = "", int(own.rpartition(":")[2])
    while True:
        try:
            return connections.listen(host, place.num_processes, port=port)
        except OSError as error:
            reason = error.strerror or str(error)
            try:
                patience.check(f"port {port} of this host cannot be opened ({reason})")
            except errors.TryAgain:
                raise OSError(
                    error.errno,
                    f"process 0 cannot listen at port {port} of this host ({reason}): choose "
                    "another port in --coordinator",
                ) from None


def _call(place: Place, patience: Patience) -> connections.Peer:
    """Calls process 0 until it answers, and waits until it says that all are there."""
    hello = {"process": place.process, "host": socket.gethostname(), "token": word(place)}
    reason = ""
    while True:
        patience.check(f"process 0 at {place.coordinator} is missing{reason}")
        try:
            found = socket.create_connection(place.address, timeout=CALL_SECONDS)
        except OSError as error:
            reason = f" ({error.strerror or error})"
            continue
        peer = connections.Peer(found, 0)
        peer.send(hello)
        try:
            _wait_for_all(peer, place, patience)
            return peer
        except connections.Lost:
            found.close()
            reason = " (it does not take this process)"
        except errors.TryAgain:
            found.close()
            raise


def _wait_for_all(peer: connections.Peer, place: Place, patience: Patience) -> None:
    while True:
        # A process 0 that has answered counts the time for all.
        what = peer.doing if peer.host else f"process 0 at {place.coordinator} does not answer"
        patience.check(what, limited=not peer.host)
        if time.monotonic() - peer.heard > SILENCE_SECONDS:
            raise connections.Lost("does not answer")
        for message in peer.receive():
            peer.note(message)
            if "end" in message:
                raise errors.TryAgain(message["end"])
            if "met" in message:
                return


def word(place: Place) -> str:
    """Returns what a process of this run says first: no secret, but nobody says it by chance."""
    return hashlib.sha256(f"{place.coordinator}/{place.num_processes}".encode()).hexdigest()[:32]


def _missing(missing: Iterable[int], num_processes: int) -> str:
    """Returns "process 2 of 4 is missing", or "processes 2, 3, … of 4 are missing"."""
    numbers = sorted(missing)
    listed = ", ".join(map(str, numbers[:8])) + (", …" if numbers[8:] else "")
    what, verb = ("processes", "are") if numbers[1:] else ("process", "is")
    return f"{what} {listed} of {num_processes} {verb} missing"
