import contextlib
import json
import socket
import threading
import time

import pytest

from pipeline.runtime import peers


class Ended:
    """Records how a process would end, and ends its thread instead."""

    def __init__(self):
        self.found, self.done = None, threading.Event()

    def __call__(self, text, code):
        self.found = (text, code)
        self.done.set()
        raise SystemExit

    def wait(self):
        assert self.done.wait(10)
        return self.found


class Connection(socket.socket):
    """One process's side of a connection; the process may freeze, or be killed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.received, self.killed, self.live = b"", False, threading.Event()
        self.live.set()

    def send(self, data):
        self.live.wait(30)
        return super().send(data)

    def recv(self, size):
        if self.killed:
            raise SystemExit  # this ends the thread that watches
        data = super().recv(size)
        self.received += data
        return data

    def wait_until_received(self, text):
        end = time.monotonic() + 10
        while text not in self.received:
            assert time.monotonic() < end, self.received
            time.sleep(0.01)


class Listener(socket.socket):
    """The listening socket of process 0; it keeps the connections that it accepted."""

    def __init__(self):
        super().__init__()
        self.accepted = []
        self.bind(("127.0.0.1", 0))
        self.listen()

    def accept(self):
        connection, address = super().accept()
        self.accepted.append(Connection(fileno=connection.detach()))
        return self.accepted[-1], address


def kill(*connections):
    """Closes the connections as the kernel does for a process that is killed."""
    for connection in connections:
        connection.killed = True
    for connection in connections:
        connection.live.set()
        with contextlib.suppress(OSError):  # the connection was closed in order
            connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setattr(peers, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(peers, "SILENCE_SECONDS", 1.0)
    # pytest warns of a SystemExit in a thread, which Python lets pass.
    report = threading.excepthook
    monkeypatch.setattr(
        threading, "excepthook", lambda end: end.exc_type is SystemExit or report(end)
    )
    with Listener() as made:
        yield made


@pytest.fixture
def connections(listener):
    """Returns {process: its side} of processes 1 and 2."""
    with Connection() as one, Connection() as two:
        for connection in (one, two):
            connection.connect(listener.getsockname())
        yield {1: one, 2: two}


@pytest.fixture
def group(listener, connections):
    """Makes the peers of three processes, each with a record of how it would end."""
    members = [peers.Peers(0, 3, listener, "secret")]
    members += [peers.Peers(number, 3, end, "secret") for number, end in connections.items()]
    for member in members:
        member.on_end = Ended()
    for connection in connections.values():
        connection.wait_until_received(b"host")  # the welcome
    yield members
    kill(*connections.values(), *listener.accepted)
    for thread in threading.enumerate():
        if thread.name == "peers":
            thread.join(5)
            assert not thread.is_alive()
    for connection in listener.accepted:
        connection.close()


def test_a_lost_process_is_named_to_all_others_with_what_it_did(group, listener, connections):
    group[1].doing = "running step 7"
    listener.accepted[0].wait_until_received(b"step 7")
    kill(connections[1])
    for member in (group[0], group[2]):
        text, code = member.on_end.wait()
        assert text.startswith("process 1 on ") and text.endswith(
            "was lost; it was last running step 7"
        )
        assert code == 1


def test_process_0_is_missed_by_all(group, listener):
    kill(*listener.accepted)
    for member in group[1:]:
        text, code = member.on_end.wait()
        assert text.startswith("process 0 on ") and "was lost" in text and code == 1


def test_a_failure_is_told_with_its_reason_and_code(group):
    group[2].doing = "reading data for step 3"
    group[2].fail("ValueError: no such file", 75)
    for member in group[:2]:
        text, code = member.on_end.wait()
        assert text.startswith("process 2 on ")
        assert text.endswith(", reading data for step 3: ValueError: no such file")
        assert code == 75
    assert group[2].on_end.found is None


def test_a_silent_process_is_lost_too_and_all_may_try_again(group, connections):
    connections[1].live.clear()
    text, code = group[2].on_end.wait()
    assert text.startswith("process 1 on ") and "silent" in text and code == 75


def test_an_end_in_order_waits_for_all_and_is_no_loss(group):
    leaving = [threading.Thread(target=member.leave) for member in group]
    for thread in leaving[:2]:
        thread.start()
    leaving[0].join(0.3)
    assert leaving[0].is_alive() and leaving[1].is_alive()
    leaving[2].start()
    for thread in leaving:
        thread.join(5)
        assert not thread.is_alive()
    assert [member.on_end.found for member in group] == [None] * 3


def test_a_stranger_is_not_listened_to(group, listener):
    with socket.create_connection(listener.getsockname()) as stranger:
        hello = {"process": 1, "host": "x", "token": "guess", "end": "all of you", "code": 0}
        stranger.sendall(b"\xff\n" + json.dumps(hello).encode() + b"\n")
        stranger.sendall(json.dumps({"end": "all of you", "code": 0}).encode() + b"\n")
        time.sleep(0.2)
    time.sleep(0.2)
    assert group[0].on_end.found is None


def test_alone_there_is_nothing_to_wait_for():
    alone = peers.alone()
    alone.fail("x")
    alone.settle()
    alone.leave()
