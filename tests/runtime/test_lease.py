"""One run, one writer: leases among several machines, by files and clocks of this test's own."""

import os
import socket
import subprocess
import sys
import time

import pytest

from pipeline.runtime import errors
from pipeline.runtime.workdir import lease, lease_files, liveness


class Machine:
    """One of several machines that share a folder; `world` holds the time, and who lives."""

    def __init__(self, world, host, pid=1):
        self.world, self.host, self.pid = world, host, pid
        world.setdefault("time", 1000.0)
        world.setdefault("alive", set()).add((host, pid))

    def identity(self):
        return {"host": self.host, "pid": self.pid}

    def lives(self, note):
        same = note.get("host") == self.host
        return (note["host"], note["pid"]) in self.world["alive"] if same else None

    def time(self):
        return self.world["time"]

    def sleep(self, seconds):
        self.world["time"] += seconds
        self.world.get("meanwhile", lambda: None)()


class Ended(Exception):
    """Stands for the end of the process."""


def ended(text):
    raise Ended(text)


@pytest.fixture
def world():
    return {}


def take(folder, machine, leaving=lambda: False, notes=None):
    note = (lambda text: None) if notes is None else notes.append
    found = lease.take(lease_files.Folder(folder), leaving=leaving, note=note, machine=machine)
    if found is not None:
        found.on_lost = ended
    return found


def leases(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".lease"))


def test_a_second_start_on_the_same_machine_is_refused_at_once(world, tmp_path):
    take(tmp_path, Machine(world, "one", 17))
    began = world["time"]
    with pytest.raises(errors.InputError) as refused:
        take(tmp_path, Machine(world, "one", 18))
    assert str(refused.value).startswith(
        f"--workdir={tmp_path} is in use by process 17 on one since 20"
    )
    assert len(str(refused.value).splitlines()) == 1
    assert world["time"] == began
    assert leases(tmp_path) == [".lease-1"]


def test_the_lease_of_a_dead_process_is_taken_at_once_on_its_machine(world, tmp_path):
    take(tmp_path, Machine(world, "one", 17))
    world["alive"].clear()
    began = world["time"]
    assert take(tmp_path, Machine(world, "one", 18))
    assert world["time"] == began
    assert leases(tmp_path) == [".lease-2"]


def test_another_machine_refuses_at_the_first_beat(world, tmp_path):
    first = take(tmp_path, Machine(world, "one"))
    began = world["time"]
    world["meanwhile"] = lambda: first.beat() if world["time"] > began + 3 else None
    with pytest.raises(errors.InputError, match="process 1 on one"):
        take(tmp_path, Machine(world, "two"))
    assert world["time"] < began + 5


def test_another_machine_takes_a_lease_that_does_not_change(world, tmp_path):
    notes = []
    take(tmp_path, Machine(world, "one"))
    began = world["time"]
    assert take(tmp_path, Machine(world, "two"), notes=notes)
    assert 20 < world["time"] - began < 22
    assert leases(tmp_path) == [".lease-2"]
    (said,) = notes
    assert "process 1 on one" in said and "20 s" in said


def test_a_file_system_that_caches_is_given_more_time(world, tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "caches_files", lambda folder: True)
    take(tmp_path, Machine(world, "one"))
    began = world["time"]
    assert take(tmp_path, Machine(world, "two"))
    assert world["time"] - began > 90


def test_a_start_that_is_itself_suspended_does_not_take_a_living_runs_lease(world, tmp_path):
    first, two = take(tmp_path, Machine(world, "one")), Machine(world, "two")
    read, reads = lease_files.Folder.read, []

    class Suspended(lease_files.Folder):
        def read(self, name):
            content = read(self, name)
            reads.append(name)
            if len(reads) == 3:
                world["time"] += 100  # this process alone stood still; the other did not
                first.beat()
            return content

    with pytest.raises(errors.InputError):
        lease.take(Suspended(tmp_path), leaving=lambda: False, note=print, machine=two)


def test_a_holder_that_was_suspended_writes_no_more_once_another_took_over(world, tmp_path):
    first = take(tmp_path, Machine(world, "one"))
    first.check()
    take(tmp_path, Machine(world, "two", 5))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Ended, match=r"was taken by process 5 on two .* while this run was suspend"):
        first.check()
    with pytest.raises(Ended):
        first.beat()
    first.release()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_holder_learns_it_even_if_the_other_run_has_ended(world, tmp_path):
    first = take(tmp_path, Machine(world, "one"))
    take(tmp_path, Machine(world, "two")).release()
    assert leases(tmp_path) == []
    with pytest.raises(Ended, match="no longer belongs to this run"):
        first.check()
    assert leases(tmp_path) == []


def test_a_holder_learns_it_even_if_a_third_run_has_the_same_number(world, tmp_path):
    first = take(tmp_path, Machine(world, "one"))
    take(tmp_path, Machine(world, "two")).release()
    take(tmp_path, Machine(world, "three"))
    before = (tmp_path / ".lease-1").read_bytes()
    with pytest.raises(Ended, match="no longer belongs to this run"):
        first.check()
    first.release()
    assert (tmp_path / ".lease-1").read_bytes() == before


def test_a_lease_that_somebody_removes_is_made_again(world, tmp_path):
    first = take(tmp_path, Machine(world, "one"))
    (tmp_path / ".lease-1").unlink()
    first.beat()
    with pytest.raises(errors.InputError):
        take(tmp_path, Machine(world, "one", 2))


@pytest.mark.parametrize("number", [1, 2])
def test_a_lease_that_somebody_removes_is_lost_to_a_start_that_takes_it(world, tmp_path, number):
    for host in ("dead", "one")[-number:]:
        first = take(tmp_path, Machine(world, host))
    (tmp_path / f".lease-{number}").unlink()
    second = take(tmp_path, Machine(world, "one", 2))
    with pytest.raises(Ended):
        first.beat()
    second.beat()
    assert leases(tmp_path) == [".lease-1"]


def test_a_released_lease_leaves_nothing_and_the_next_start_has_it(world, tmp_path):
    first = take(tmp_path, Machine(world, "one"))
    first.release()
    first.beat()
    assert leases(tmp_path) == []
    assert take(tmp_path, Machine(world, "two"))


def test_a_start_waits_for_a_run_that_is_leaving(world, tmp_path):
    stops = []
    first = take(tmp_path, Machine(world, "one"), leaving=lambda: bool(stops))
    stops.append(True)
    first.beat()
    began, notes = world["time"], []

    def meanwhile():
        first.beat()
        if world["time"] > began + 60:
            first.release()

    world["meanwhile"] = meanwhile
    assert take(tmp_path, Machine(world, "one", 2), notes=notes)
    assert world["time"] > began + 60
    assert len(notes) == 1 and "until it leaves" in notes[0]


def test_a_start_that_is_asked_to_stop_while_it_waits_takes_nothing(world, tmp_path):
    take(tmp_path, Machine(world, "one"))
    end = world["time"] + 5
    machine = Machine(world, "two")
    assert take(tmp_path, machine, leaving=lambda: world["time"] > end) is None
    assert leases(tmp_path) == [".lease-1"]


def test_of_two_starts_at_the_same_moment_one_wins(world, tmp_path):
    take(tmp_path, Machine(world, "dead"))
    winners = []

    class Slow(lease_files.Folder):
        def create(self, name, content):  # another start is faster
            if not winners:
                winners.append(take(tmp_path, Machine(world, "one", 1)))
            return super().create(name, content)

    with pytest.raises(errors.InputError, match="process 1 on one"):
        lease.take(
            Slow(tmp_path), leaving=lambda: False, note=print, machine=Machine(world, "one", 2)
        )
    winners[0].check()
    assert leases(tmp_path) == [".lease-2"]


@pytest.mark.parametrize("dead", [["dead"], ["dead", "dead too"]])
def test_a_start_that_saw_an_old_folder_withdraws(world, tmp_path, dead):
    for host in dead:
        take(tmp_path, Machine(world, host))
    others = []

    class Slow(lease_files.Folder):
        def create(self, name, content):  # meanwhile a run came and went, and one more came
            if not others:
                take(tmp_path, Machine(world, "one", 3)).release()
                others.append(take(tmp_path, Machine(world, "one", 4)))
            return super().create(name, content)

    with pytest.raises(errors.InputError, match="process 4 on one"):
        lease.take(
            Slow(tmp_path), leaving=lambda: False, note=print, machine=Machine(world, "one", 2)
        )
    others[0].beat()
    assert leases(tmp_path) == [".lease-1"]


def test_a_full_disk_ends_no_run(world, tmp_path, monkeypatch):
    first = take(tmp_path, Machine(world, "one"))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease_files.Folder, "update", full)
    world["time"] += 100
    first.check()


def test_a_run_still_learns_on_a_full_disk_that_it_was_replaced(world, tmp_path, monkeypatch):
    first = take(tmp_path, Machine(world, "one"))
    take(tmp_path, Machine(world, "two"))
    monkeypatch.setattr(lease_files.Folder, "update", ended)
    with pytest.raises(Ended, match="was taken by"):
        first.check()


def test_a_check_right_after_a_beat_does_not_touch_the_disk(world, tmp_path, monkeypatch):
    first = take(tmp_path, Machine(world, "one"))
    monkeypatch.setattr(lease_files.Folder, "names", ended)
    world["time"] += 9
    first.check()


def test_a_copy_of_a_folder_in_use_is_free(world, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    take(tmp_path / "a", Machine(world, "one"))
    (tmp_path / "b" / ".lease-1").write_bytes((tmp_path / "a" / ".lease-1").read_bytes())
    assert take(tmp_path / "b", Machine(world, "one", 2))


def test_a_failed_creation_leaves_no_lease(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        take(tmp_path, liveness.Machine())
    assert leases(tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff{"),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(b'{"host": "a\\nb", "pid": "x", "folder": 3}'),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
        lambda path: os.mkfifo(path),
    ],
    ids=["empty", "bytes", "brackets", "values", "folder", "link", "pipe"],
)
def test_whatever_stands_in_place_of_a_lease_is_taken_for_dead(world, tmp_path, damage):
    damage(tmp_path / ".lease-1")
    found = take(tmp_path, Machine(world, "one"))
    assert (tmp_path / ".lease-2").is_file()
    found.check()


@pytest.mark.parametrize("name", [".lease-0", ".lease-01", ".lease-x", ".lease-²", ".lease-1.tmp"])
def test_other_names_are_no_leases(world, tmp_path, name):
    (tmp_path / name).touch()
    assert take(tmp_path, Machine(world, "one"))
    assert (tmp_path / ".lease-1").is_file()


def test_this_machine_knows_which_processes_live():
    machine = liveness.Machine()
    assert machine.lives(machine.identity()) is True
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    mine = machine.identity()
    with open(f"/proc/{child.pid}/stat") as file:
        start = file.read().rpartition(")")[2].split()[19]
    note = mine | {"pid": child.pid, "start": start}
    assert machine.lives(note) is True
    assert machine.lives(note | {"start": "1"}) is False  # the number belongs to another by now
    assert machine.lives(note | {"boot": "another machine's"}) is None
    assert machine.lives(note | {"namespace": "pid:[1]"}) is None
    assert machine.lives({}) is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
    assert machine.lives(note) is False
    child.communicate()
    assert machine.lives(note) is False
    assert mine["host"] == socket.gethostname()


def test_the_thread_beats_while_the_main_thread_is_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_files.Folder, "beat_seconds", 0.01)
    first = take(tmp_path, liveness.Machine())
    before = (tmp_path / ".lease-1").read_bytes()
    first.start()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(1000))
    after = (tmp_path / ".lease-1").read_bytes()
    assert len(after) == len(before) and after != before
    first.release()
    assert leases(tmp_path) == []


def test_a_folder_that_a_failed_start_made_is_removed_again(tmp_path):
    path = tmp_path / "a" / "b"
    with pytest.raises(Ended), lease_files.made(path):
        assert path.is_dir()
        raise Ended
    assert list(tmp_path.iterdir()) == []
    with lease_files.made(path):
        (path / "file").touch()
    assert (path / "file").exists()
