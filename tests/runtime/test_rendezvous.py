"""The processes of a run meet: who is missing is named, and strangers change nothing."""

import contextlib
import json
import socket
import threading
import time

import pytest

from pipeline.runtime import connections, errors
from pipeline.runtime.processes import rendezvous
from tests.support.processes import free_port


class Meeting(threading.Thread):
    """One process that meets the others; the result is the connections, or the error."""

    def __init__(self, port, process, num=3, seconds=20.0, host="127.0.0.1"):
        super().__init__()
        self.place = rendezvous.Place(f"{host}:{port}", num, process)
        self.seconds, self.stopping, self.found = seconds, False, None
        self.start()

    def run(self):
        try:
            self.found = rendezvous.meet(
                self.place, seconds=self.seconds, stopped=lambda: self.stopping
            )
        except (errors.TryAgain, OSError) as error:
            self.found = error

    def result(self):
        self.join(20)
        assert not self.is_alive()
        if isinstance(self.found, list):
            for peer in self.found:
                peer.connection.close()
        return self.found


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(rendezvous, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(rendezvous, "word", lambda place: "secret")
    return free_port()


def reach(port):
    """Returns a connection to process 0, which may not listen yet."""
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.01)


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


def test_all_meet_whoever_comes_first_and_then_the_port_is_closed(port):
    late = [Meeting(port, 2), Meeting(port, 1)]
    time.sleep(0.2)
    first = Meeting(port, 0)
    first.join(10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert sorted(peer.process for peer in first.result()) == [1, 2]
    assert all(peer.host for peer in first.found)
    assert [[peer.process for peer in one.result()] for one in late] == [[0], [0]]


def test_all_name_the_process_that_never_comes(port):
    both = [Meeting(port, 0, seconds=0.5), Meeting(port, 2, seconds=9.0)]
    texts = [str(one.result()) for one in both]
    assert texts[0] == texts[1]
    assert texts[0].startswith("process 1 of 3 is missing after 1 s: ")
    assert "--distributed=off" in texts[0] and isinstance(both[1].found, errors.TryAgain)


def test_without_process_0_the_others_name_it_and_why(port):
    text = str(Meeting(port, 1, seconds=0.3).result())
    assert text.startswith(f"process 0 at 127.0.0.1:{port} is missing (Connection refused)")


def test_a_process_that_dies_while_it_waits_is_missing_again_and_may_come_back(port):
    first, dying = Meeting(port, 0), reach(port)
    with dying:
        dying.sendall(line(hello()))
        assert b"host" in dying.recv(1000)  # the welcome
    others = [Meeting(port, 2), Meeting(port, 1)]
    assert sorted(peer.process for peer in first.result()) == [1, 2]
    assert all(isinstance(one.result(), list) for one in others)


@pytest.mark.parametrize("process", [0, 1])
def test_a_stop_request_ends_the_wait_at_once(port, process):
    waiting = Meeting(port, process)
    time.sleep(0.1)
    waiting.stopping = True
    began = time.monotonic()
    assert str(waiting.result()).startswith("stopped before the run began: process")
    assert time.monotonic() - began < 5


def test_processes_that_wait_with_a_stopped_process_0_end_too(port):
    first, second = Meeting(port, 0), Meeting(port, 1)
    time.sleep(0.3)
    first.stopping = True
    assert str(second.result()) == str(first.result())


def test_a_port_in_use_is_waited_for_and_then_named(port):
    with socket.create_server(("127.0.0.1", port)):
        text = str(Meeting(port, 0, seconds=0.3).result())
    assert f"cannot listen at port {port} " in text and "--coordinator" in text


def test_a_long_wait_says_for_whom(monkeypatch, capsys, port):
    monkeypatch.setattr(rendezvous, "SAY_SECONDS", 0.1)
    Meeting(port, 0, seconds=0.5).result()
    assert (
        capsys.readouterr().err
        == "waiting (up to --join_seconds=0.5): processes 1, 2 of 3 are missing\n"
    )


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
        line(hello(process="1")),
        line(hello(process=True)),
        line(hello(process=[1])),
        line(hello(host=7)),
        line({"process": 1, "token": "secret"}),
    ],
    ids=lambda sent: sent[:60].decode(errors="replace"),
)
def test_a_stranger_is_dropped_after_its_first_wrong_message(port, sent):
    first = Meeting(port, 0)
    with reach(port) as stranger:
        with contextlib.suppress(ConnectionError):  # dropped before all is sent
            stranger.sendall(sent)
        assert is_dropped(stranger)
    assert first.is_alive()
    others = [Meeting(port, 1), Meeting(port, 2)]
    assert all(isinstance(one.result(), list) for one in (first, *others))


def test_a_silent_or_slow_stranger_is_dropped_and_ends_nothing(monkeypatch, port):
    monkeypatch.setattr(connections, "CALLER_SECONDS", 0.3)
    first = Meeting(port, 0)
    with reach(port) as silent, reach(port) as slow:
        slow.sendall(b'{"token":')
        assert is_dropped(silent) and is_dropped(slow)
    others = [Meeting(port, 1), Meeting(port, 2)]
    assert all(isinstance(one.result(), list) for one in (first, *others))


def test_a_second_process_of_the_same_number_changes_nothing(port):
    first, second = Meeting(port, 0), Meeting(port, 1)
    time.sleep(0.3)
    with reach(port) as double:
        double.sendall(line(hello()))
        assert is_dropped(double)
    third = Meeting(port, 2)
    assert all(isinstance(one.result(), list) for one in (first, second, third))


def test_many_strangers_hold_few_connections_and_keep_no_process_out(monkeypatch, port):
    monkeypatch.setattr(connections, "CALLERS", 4)
    first = Meeting(port, 0)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(reach(port)) for _ in range(30)]
        others = [Meeting(port, 1), Meeting(port, 2)]
        assert all(map(is_dropped, strangers[:20]))
        assert all(isinstance(one.result(), list) for one in (first, *others))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_processes_of_one_machine_listen_on_loopback_only(port, host):
    first = Meeting(port, 0, num=2, host=host)
    reach(port).close()
    # A socket that listens on all addresses would accept this one, too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    second = Meeting(port, 1, num=2, host=host)
    assert isinstance(first.result(), list) and isinstance(second.result(), list)


def test_a_server_of_an_earlier_start_at_the_port_is_waited_for(port):
    with socket.create_server(("127.0.0.1", port)) as other:
        second = Meeting(port, 1, num=2)
        caller, _ = other.accept()
        caller.sendall(b"PRI * HTTP/2.0\r\n\r\n")
        caller.close()
    first = Meeting(port, 0, num=2)
    assert isinstance(first.result(), list) and isinstance(second.result(), list)


@pytest.mark.parametrize(
    ("coordinator", "bound"),
    [
        ("127.0.0.1:99", "127.0.0.1:99"),
        ("localhost:99", "127.0.0.1:99"),
        ("[::1]:99", "[::1]:99"),
        ("10.0.0.1:99", None),
        ("host-0:99", None),
    ],
)
def test_jax_listens_on_loopback_only_if_its_coordinator_is_there(coordinator, bound):
    assert rendezvous.Place(coordinator, 2, 0).bound == bound
