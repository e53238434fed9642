"""The folder of a run: held by one run, and what is removed from it ends the run."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from pipeline.display import tensorboard
from pipeline.runtime import errors, peers
from pipeline.runtime.workdir import contents, lease, lease_files, liveness
from pipeline.training import run_folder
from pipeline.training.saving import checkpoint, checkpoint_folder
from tests.support import small_models
from tests.support.processes import ROOT

# Holds the lease of a folder, and appends to a file there, as a run does.
WRITER = """
import pathlib, sys, time
from pipeline.runtime import peers
from pipeline.runtime.workdir import lease_files
from pipeline.training import run_folder
lease_files.Folder.beat_seconds, lease_files.Folder.patience_seconds = 0.2, 2.0
class Stop: signal = None
class Section: atomicity = "auto"
class Given: checkpoint = Section
class Ready: given = Given
run_folder.run_config.check_against_run = lambda config, workdir: False
path = pathlib.Path(sys.argv[1])
with run_folder.held(path, Ready, stop=Stop, others=peers.alone()) as folder:
    (path / "checkpoints").mkdir()
    (path / "config.json").touch()
    for number in range(10**9):
        folder.check()
        with open(path / "points", "a") as file:
            print(number, file=file)
        time.sleep(0.001)
"""


class Failed(Exception):
    pass


@pytest.fixture
def held(tmp_path):
    found = lease.take(
        lease_files.Folder(tmp_path),
        leaving=lambda: False,
        note=print,
        machine=liveness.Machine(),
    )
    (tmp_path / "checkpoints").mkdir()
    folder = run_folder.Folder(tmp_path, found)
    folder.keep(small_models.make_config("beta"))
    yield folder
    found.release()


def test_the_newest_committed_step_is_noted(held):
    held.check(now=True)
    assert contents.saved(held.path) is None
    for name in ("20", "40", "60.orbax-checkpoint-tmp", "damaged-80"):
        (held.path / "checkpoints" / name).mkdir()
    held.check()  # it was looked at just now
    assert contents.saved(held.path) is None
    held.check(now=True)
    assert contents.saved(held.path) == 40


class Stop:
    signal = None


def other_run():
    """Returns the set-up of a run with another config than `held` has kept."""
    config = small_models.make_config("beta")
    with config.unlocked():
        config.seed += 1
    return types.SimpleNamespace(given=config)


def test_a_run_that_began_only_now_is_named_before_its_config(held):
    # A second start has read the folder before the first one wrote config.json.
    with (
        pytest.raises(errors.InputError, match="is in use by process"),
        run_folder.held(held.path, other_run(), stop=Stop, others=peers.alone()),
    ):
        raise AssertionError


def test_a_config_that_differs_is_refused_once_the_lease_is_free(held, monkeypatch):
    held.path.joinpath(".lease-1").rename(held.path / ".lease-7")
    held.path.joinpath(".lease-7").write_text("damaged")
    monkeypatch.setattr(lease_files.Folder, "patience_seconds", 0.5)
    with (
        pytest.raises(errors.InputError, match=r"holds another run: config\.seed"),
        run_folder.held(held.path, other_run(), stop=Stop, others=peers.alone()),
    ):
        raise AssertionError
    assert not [*held.path.glob(".lease-*")]


@pytest.mark.parametrize("what", ["checkpoints", "checkpoints/20", "."])
def test_what_is_removed_from_under_a_run_ends_it(held, what):
    (held.path / "checkpoints" / "20").mkdir()
    held.check(now=True)
    shutil.rmtree(held.path / what)
    with pytest.raises(errors.InputError, match="was removed or emptied while this run trains"):
        held.check(now=what != ".")
    # Nothing may bring the folder back: another run may begin there.
    assert what != "." or not held.path.exists()


def test_a_folder_of_checkpoints_that_is_removed_before_the_first_save_ends_the_run(held):
    held.check(now=True)
    (held.path / "checkpoints").rmdir()
    with pytest.raises(errors.InputError, match="checkpoints was removed or emptied"):
        held.check(now=True)


def test_the_lease_is_checked_each_time_and_before_the_config_is_written(tmp_path):
    class Lost:
        def check(self):
            raise Failed

    folder = run_folder.Folder(tmp_path, Lost())
    for write in (folder.check, lambda: folder.keep(small_models.make_config("beta"))):
        with pytest.raises(Failed):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_removed_folder_is_noticed_though_a_save_brings_a_part_of_it_back(held):
    held.check()
    shutil.rmtree(held.path)
    (held.path / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(errors.InputError, match=f"{held.path} was removed"):
        held.check()


class Run:
    """Stands for a run and its stop request."""

    given, signal = small_models.make_config("beta"), None


def fail_after(harm, path):
    with run_folder.held(path, Run, stop=Run, others=peers.alone()) as folder:
        folder.keep(Run.given)
        harm()
        raise OSError("the disk failed")


def test_a_removed_folder_is_the_reason_of_other_failures(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(errors.InputError, match=f"{path} was removed"):
        fail_after(lambda: shutil.rmtree(path), path)
    with pytest.raises(OSError, match="the disk failed"):
        fail_after(lambda: None, path)
    assert not [one for one in path.iterdir() if one.name.startswith(".lease")]


def test_a_start_that_fails_before_it_writes_leaves_no_folder(tmp_path):
    with (
        pytest.raises(Failed),
        run_folder.held(tmp_path / "a" / "b", Run, stop=Run, others=peers.alone()),
    ):
        raise Failed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", ".config.json", ".saved", "tensorboard"])
def test_a_run_goes_on_without_what_it_can_write_again(held, name):
    (held.path / name).unlink(missing_ok=True)
    held.check(now=True)
    held.check()


def test_a_full_disk_does_not_end_a_run_by_its_note(held, monkeypatch):
    (held.path / "checkpoints" / "20").mkdir()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    held.check(now=True)


def test_removed_event_files_end_a_run(tmp_path):
    writer = tensorboard.Writer(tmp_path / "tensorboard", resume_step=None)
    writer.write("train/loss", 1.0, 1)
    writer.flush()
    shutil.rmtree(tmp_path / "tensorboard")
    writer.write("train/loss", 1.0, 2)
    for end in (writer.flush, writer.close):
        with pytest.raises(OSError, match="was removed while this run wrote it") as found:
            end()
        assert len(errors.reason(found.value).splitlines()) == 1


def test_a_holder_that_wakes_up_after_another_took_over_writes_nothing_more(tmp_path, monkeypatch):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    points = tmp_path / "points"
    while not points.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    class AnotherMachine(liveness.Machine):
        def lives(self, note):
            return None

    monkeypatch.setattr(lease_files.Folder, "patience_seconds", 2.0)
    taken = lease.take(
        lease_files.Folder(tmp_path), leaving=lambda: False, note=print, machine=AnotherMachine()
    )
    before = points.stat().st_size
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert points.stat().st_size - before <= len("1000000\n")  # the write that it was in
    assert err.startswith(f"error: --workdir={tmp_path} was taken by process {os.getpid()} on ")
    assert len(err.splitlines()) == 1
    taken.check()


@pytest.fixture
def one_save(tmp_path):
    config, mesh = small_models.make_config("beta"), small_models.mesh_of(1)
    state = small_models.first_state(config, mesh)
    return checkpoint.Checkpoints(tmp_path / "checkpoints", config.checkpoint), state


def test_an_error_lets_a_save_that_is_under_way_finish(one_save, tmp_path, monkeypatch):
    checkpoints, state = one_save
    rename = os.rename

    def slowly(*arguments, **options):
        time.sleep(0.5)
        return rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", slowly)
    with pytest.raises(Failed), checkpoints:
        checkpoints.save(1, state, None)
        assert contents.committed(tmp_path) == []
        raise Failed
    assert contents.committed(tmp_path) == [1]


def test_an_error_does_not_wait_for_ever_for_a_save(one_save, monkeypatch):
    checkpoints, _ = one_save
    over = threading.Event()
    monkeypatch.setattr(checkpoint, "FINISH_SECONDS", 0.1)
    monkeypatch.setattr(
        checkpoint.ocp.CheckpointManager, "wait_until_finished", lambda self: over.wait(20)
    )
    began = time.monotonic()
    with pytest.raises(Failed), checkpoints:
        raise Failed
    assert time.monotonic() - began < 10
    over.set()


def test_a_save_that_fails_does_not_hide_the_error(one_save, monkeypatch):
    checkpoints, _ = one_save

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "wait_until_finished", full)
    with pytest.raises(Failed), checkpoints:
        raise Failed


@pytest.mark.parametrize("name", ["007", "５０", "+60", "6_0", "²"])
def test_a_folder_whose_name_no_save_has_is_no_checkpoint(tmp_path, name):
    folder = tmp_path / "checkpoints"
    (folder / name).mkdir(parents=True)
    assert contents.committed(tmp_path) == []
    assert checkpoint_folder.entries(folder) == {}
    assert checkpoint_folder.unfinished(folder) == []  # which are removed
    contents.note_saved(tmp_path, 40)
    with pytest.raises(errors.InputError, match="step 40"):
        contents.check_checkpoints(tmp_path)
