import contextlib
import json
import socket
import threading
import time

import pytest

from pipeline.runtime import connections, errors, peers


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


def kill(*connections):
    """Closes the connections as the kernel does for a process that is killed."""
    for connection in connections:
        connection.killed = True
    for connection in connections:
        connection.live.set()
        with contextlib.suppress(OSError):  # the connection was closed in order
            connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ends(monkeypatch):
    """Makes the connections of processes 1 and 2: {process: (process 0's end, its own end)}."""
    monkeypatch.setattr(peers, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(peers, "SILENCE_SECONDS", 1.0)
    # pytest warns of a SystemExit in a thread, which Python lets pass.
    report = threading.excepthook
    monkeypatch.setattr(
        threading, "excepthook", lambda end: end.exc_type is SystemExit or report(end)
    )
    made = {}
    for number in (1, 2):
        pair = socket.socketpair()
        made[number] = tuple(Connection(fileno=end.detach()) for end in pair)
    yield made
    kill(*made[1], *made[2])
    for thread in threading.enumerate():
        if thread.name == "peers":
            thread.join(5)
            assert not thread.is_alive()
    for end in (*made[1], *made[2]):
        end.close()


@pytest.fixture
def sides(ends):
    """Returns {process: its end} of processes 1 and 2."""
    return {number: own for number, (_, own) in ends.items()}


@pytest.fixture
def firsts(ends):
    """Returns {process: process 0's end of its connection} for processes 1 and 2."""
    return {number: end for number, (end, _) in ends.items()}


@pytest.fixture
def group(firsts, sides):
    """Makes the peers of three processes, each with a record of how it would end."""
    known = [connections.Peer(end, number, host="x") for number, end in firsts.items()]
    members = [peers.Peers(0, known)]
    members += [
        peers.Peers(number, [connections.Peer(end, 0, host="x")]) for number, end in sides.items()
    ]
    for member in members:
        member.on_end = Ended()
    return members


def test_a_lost_process_is_named_to_all_others_with_what_it_did(group, firsts, sides):
    group[1].doing = "running step 7"
    firsts[1].wait_until_received(b"step 7")
    kill(sides[1])
    for member in (group[0], group[2]):
        text, code = member.on_end.wait()
        assert text.startswith("process 1 on ") and text.endswith(
            "was lost; it was last running step 7"
        )
        assert code == 1


def test_process_0_is_missed_by_all(group, firsts):
    kill(*firsts.values())
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


def line(message):
    return json.dumps(message).encode() + b"\n"


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


def test_time_in_which_a_process_was_stopped_is_no_silence_of_others(monkeypatch, group, sides):
    monkeypatch.setattr(peers, "PAUSE_SECONDS", 0.5)
    real, shift = time.monotonic, [0.0]
    monkeypatch.setattr(peers.time, "monotonic", lambda: real() + shift[0])
    shift[0] = 3600.0  # the clock goes on while all are stopped
    time.sleep(0.5 * peers.SILENCE_SECONDS)
    assert [member.on_end.found for member in group] == [None] * 3
    sides[1].live.clear()
    assert "silent" in group[2].on_end.wait()[0]


def test_before_all_are_connected_a_loss_asks_for_another_start(group, sides):
    group[0].code_of_loss = 75
    kill(sides[1])
    assert group[0].on_end.wait()[1] == 75


def test_a_fault_waits_for_the_others_and_a_mistake_does_not(group):
    began = time.monotonic()
    group[1].settle(ValueError("of a save"))
    assert time.monotonic() - began >= 3 * peers.BEAT_SECONDS
    began = time.monotonic()
    group[1].settle(errors.InputError("a flag"))
    assert time.monotonic() - began < 0.1


def test_an_error_of_another_thread_ends_all_if_the_main_thread_cannot_report_it(
    group, monkeypatch
):
    monkeypatch.setattr(peers, "REPORT_SECONDS", 0.1)
    group[1].fail_soon(OSError(28, "cannot write to /run"))
    assert group[1].on_end.wait() == ("cannot write to /run", 1)
    for other in (group[0], group[2]):
        text, code = other.on_end.wait()
        assert text.startswith("process 1 on ")
        assert text.endswith(": cannot write to /run")
        assert code == 1


def test_an_error_of_another_thread_is_reported_once(group, monkeypatch):
    monkeypatch.setattr(peers, "REPORT_SECONDS", 0.1)
    group[1].fail_soon(OSError(28, "cannot write to /run"))
    group[1].fail("cannot write to /run")
    time.sleep(0.3)
    assert group[1].on_end.found is None


def test_process_0_leaves_after_the_others_which_it_has_told(group, sides, monkeypatch):
    monkeypatch.setattr(peers, "BEAT_SECONDS", 5.0)
    failing = threading.Thread(target=group[0].fail, args=["the disk is full"])
    failing.start()
    for number in (1, 2):
        assert group[number].on_end.wait()[0].endswith("the disk is full")
        assert failing.is_alive()
        kill(sides[number])
    failing.join(2)
    assert not failing.is_alive()
    group[0].leave()


def test_what_all_know_none_has_to_be_told(group):
    leaving = [threading.Thread(target=member.leave) for member in group]
    for thread in leaving:
        thread.start()
    for thread in leaving:
        thread.join(5)
    began = time.monotonic()
    for member in group:
        member.fail("a difference that all have found", 2)
    assert time.monotonic() - began < peers.BEAT_SECONDS
    assert [member.on_end.found for member in group] == [None] * 3


def test_alone_there_is_nothing_to_wait_for():
    alone = peers.alone()
    alone.fail("x")
    alone.settle(ValueError())
    alone.fail_soon(ValueError())
    alone.leave()
