import json
import socket
import threading
import time

import pytest

from pipeline.runtime import peers


class Ended:
    """Notes the end that a process would make."""

    def __init__(self):
        self.found, self._event = None, threading.Event()

    def __call__(self, text, code):
        self.found = self.found or (text, code)
        self._event.set()

    def wait(self):
        assert self._event.wait(10)
        return self.found


@pytest.fixture
def group(monkeypatch):
    """Makes three processes' peers, each with the end it would come to."""
    monkeypatch.setattr(peers, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(peers, "SILENCE_SECONDS", 1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    members = [peers.Peers(0, 3, listener, "secret")]
    members += [peers.Peers(i, 3, socket.create_connection(address), "secret") for i in (1, 2)]
    for member in members:
        member.on_end = Ended()
    end = time.monotonic() + 10
    while members[0]._missing and time.monotonic() < end:
        time.sleep(0.01)
    yield members
    for member in members:
        member._left.set()
    for thread in threading.enumerate():
        if thread.name == "peers":
            thread.join(5)


def cut(member):
    """What the kernel does with the connections of a process that is killed."""
    member._peers[0].connection.shutdown(socket.SHUT_RDWR)


def said(member, text):
    end = time.monotonic() + 10
    while time.monotonic() < end and not any(text in peer.doing for peer in member._peers):
        time.sleep(0.01)


def test_a_lost_process_is_named_to_all_others_with_what_it_did(group):
    group[1].doing = "running step 7"
    said(group[0], "step 7")
    cut(group[1])
    for member in (group[0], group[2]):
        text, code = member.on_end.wait()
        assert text.startswith("process 1 on ") and text.endswith(
            "was lost; it was last running step 7"
        )
        assert code == 1


def test_process_0_is_missed_by_all(group):
    group[0]._left.set()  # it closes all its connections, as the kernel does for a process
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


def test_a_silent_process_is_lost_too_and_all_may_try_again(group):
    thaw = threading.Event()
    group[1]._selector.select = lambda timeout: thaw.wait(10) and []
    text, code = group[2].on_end.wait()
    assert text.startswith("process 1 on ") and "silent" in text and code == 75
    thaw.set()


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


def test_a_stranger_is_not_listened_to(group):
    port = group[0]._selector.get_map()
    listener = next(key.fileobj for key in port.values() if key.data is None)
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
