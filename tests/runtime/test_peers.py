import contextlib
import json
import socket
import threading
import time

import pytest

from pipeline.runtime import connections, peers


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
def sides(listener):
    """Returns {process: its side} of processes 1 and 2."""
    with Connection() as one, Connection() as two:
        for connection in (one, two):
            connection.connect(listener.getsockname())
        yield {1: one, 2: two}


@pytest.fixture
def group(listener, sides):
    """Makes the peers of three processes, each with a record of how it would end."""
    members = [peers.Peers(0, 3, listener, "secret")]
    members += [peers.Peers(number, 3, end, "secret") for number, end in sides.items()]
    for member in members:
        member.on_end = Ended()
    for connection in sides.values():
        connection.wait_until_received(b"host")  # the welcome
    yield members
    kill(*sides.values(), *listener.accepted)
    for thread in threading.enumerate():
        if thread.name == "peers":
            thread.join(5)
            assert not thread.is_alive()
    for connection in listener.accepted:
        connection.close()


def test_a_lost_process_is_named_to_all_others_with_what_it_did(group, listener, sides):
    group[1].doing = "running step 7"
    listener.accepted[0].wait_until_received(b"step 7")
    kill(sides[1])
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


def test_a_silent_process_is_lost_too_and_all_may_try_again(group, sides):
    sides[1].live.clear()
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


def hello(**changes):
    return {"process": 1, "host": "x", "token": "secret", **changes}


def line(message):
    return json.dumps(message).encode() + b"\n"


def is_dropped(stranger):
    """Whether the other end closes the connection, without a word, within a few seconds."""
    stranger.settimeout(5)
    try:
        return stranger.recv(1) == b""
    except ConnectionError:  # it closed with bytes unread
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"1\n",
        b"\xff\n",
        b"\n",
        b"[" * 60_000,
        b"[" * 500 + b"\n",
        b"9" * 500 + b"\n",
        b"x" * 2_000_000,
        line({"end": "all of you", "code": 0}),
        line(hello(token="guess")),
        line(hello(token="secr\u00e9t")),
        line(hello(token="\ud800")),
        line(hello(token=None)),
        line(hello(process=0)),
        line(hello(process=3)),
        line(hello(process=1)),  # is no longer missing
        line(hello(process="1")),
        line(hello(process=True)),
        line(hello(process=[1])),
        line(hello(host=7)),
        line({"process": 1, "token": "secret"}),
    ],
    ids=lambda sent: sent[:60].decode(errors="replace"),
)
def test_a_stranger_is_dropped_after_its_first_wrong_message(group, listener, sent):
    with socket.create_connection(listener.getsockname()) as stranger:
        with contextlib.suppress(ConnectionError):  # dropped before all is sent
            stranger.sendall(sent)
        assert is_dropped(stranger)
    assert group[0].on_end.found is None


def test_a_silent_or_slow_stranger_is_dropped_and_ends_nothing(monkeypatch, group, listener):
    monkeypatch.setattr(connections, "CALLER_SECONDS", 0.3)
    with (
        socket.create_connection(listener.getsockname()) as silent,
        socket.create_connection(listener.getsockname()) as slow,
    ):
        slow.sendall(b'{"token":')
        assert is_dropped(silent) and is_dropped(slow)
    time.sleep(1.5 * peers.SILENCE_SECONDS)
    assert group[0].on_end.found is None


def test_many_strangers_hold_few_connections_and_keep_no_process_out(monkeypatch, listener):
    monkeypatch.setattr(connections, "CALLERS", 4)
    monkeypatch.setattr(peers, "SILENCE_SECONDS", 10.0)
    with contextlib.ExitStack() as stack:
        strangers = [
            stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(30)
        ]
        first = peers.Peers(0, 2, listener, "secret")
        first.on_end = Ended()
        second = stack.enter_context(Connection())
        second.connect(listener.getsockname())
        other = peers.Peers(1, 2, second, "secret")
        other.on_end = Ended()
        second.wait_until_received(b"host")
        assert all(map(is_dropped, strangers[:20]))
        leaving = threading.Thread(target=other.leave)
        leaving.start()
        first.leave()
        leaving.join(5)
        assert not leaving.is_alive()
        assert first.on_end.found is None and other.on_end.found is None


@pytest.mark.parametrize(
    "sent",
    [
        b"1\n",
        b"[" * 60_000 + b"\n",
        b"x" * 200_000,
        line({"doing": 7}),
        line({"end": "no code"}),
        line({"end": "x", "code": "1"}),
        line({"end": "x", "code": 10**30}),
    ],
    ids=lambda sent: sent[:30].decode(),
)
def test_a_process_that_sends_a_malformed_message_is_lost(group, sides, sent):
    sides[1].sendall(sent)
    for member in (group[0], group[2]):
        text, code = member.on_end.wait()
        assert text.startswith("process 1 on ") and code == 1
        assert text.endswith("was lost after a malformed message; it was last starting")


def test_a_long_reason_still_reaches_all_others(group):
    group[1].fail("\U0001f4a5" * 100_000)
    for member in (group[0], group[2]):
        assert "starting: \U0001f4a5" in member.on_end.wait()[0]


class Store(dict):
    """The key-value store that the processes share."""

    def key_value_set(self, key, value):
        self[key] = value

    def blocking_key_value_get(self, key, milliseconds):
        return self[key]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_processes_of_one_machine_listen_on_loopback_only(host):
    store = Store()
    members = [
        peers.connect(store, process=number, num_processes=2, coordinator=f"{host}:1234")
        for number in range(2)
    ]
    # A socket that listens on all addresses would accept this one, too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", json.loads(store[peers.KEY])["port"]), timeout=5)
    leaving = threading.Thread(target=members[1].leave)
    leaving.start()
    members[0].leave()
    leaving.join(5)
    assert not leaving.is_alive()


def test_alone_there_is_nothing_to_wait_for():
    alone = peers.alone()
    alone.fail("x")
    alone.settle()
    alone.leave()
