"""One run, one writer, with real processes: a second start is refused, the first loses nothing."""

import json
import shutil
import signal
import time

import pytest

from pipeline.runtime import run_config
from tests.support.commands import train
from tests.support.processes import codes, start
from tests.support.runs import committed, scalars

EVERY = ("--config.log_every_steps=1", "--config.checkpoint.every_steps=5")
FOREVER = ("--config.total_steps=100000", *EVERY)


def error_of(process):
    (line,) = [line for line in process.output.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in process.output
    return line


def hidden(workdir):
    return sorted(path.name for path in workdir.iterdir() if path.name.startswith(".lease"))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """Returns a run that was disturbed by others while it trained, and the other starts."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    first, second = start(workdir, *FOREVER) + start(workdir, *FOREVER)  # at the same moment
    started = [first, second]
    while all(process.poll() is None for process in started):
        time.sleep(0.05)
    (refused,) = [process for process in started if process.poll() is not None]
    (running,) = [process for process in started if process.poll() is None]
    running.wait_for("step 10/")
    group = start(workdir, *FOREVER, processes=2)
    assert codes(group) == [2, 2]
    running.send_signal(signal.SIGTERM)
    assert codes([running]) == [75]
    return workdir, refused, group, running


def test_of_two_starts_at_one_moment_one_is_refused_in_one_line(disturbed):
    workdir, refused, _, running = disturbed
    assert refused.returncode == 2
    assert f"--workdir={workdir} is in use by process {running.pid} on " in error_of(refused)


def test_all_processes_of_a_later_start_are_refused(disturbed):
    _, _, group, running = disturbed
    for process in group:
        assert f"is in use by process {running.pid} on " in error_of(process)


def test_the_first_run_loses_nothing_and_leaves_no_lease(disturbed):
    workdir, _, _, _ = disturbed
    at = committed(workdir)[-1]
    assert [step for step, _ in scalars(workdir)["train/loss"]] == list(range(1, at + 1))
    assert hidden(workdir) == []


def test_a_killed_runs_folder_is_free_and_a_removed_folder_ends_the_run(disturbed, tmp_path):
    workdir = shutil.copytree(disturbed[0], tmp_path / "run")
    (process,) = start(workdir, *FOREVER)
    process.wait_for(f"step {committed(workdir)[-1] + 2}/")
    process.kill()
    process.wait()
    assert hidden(workdir) == [".lease-1"]
    before = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    # What only reads needs no lease, and leaves that of others alone.
    assert run_config.load(workdir).total_steps == 100_000
    assert {path: path.read_bytes() for path in before} == before

    (process,) = start(workdir, *FOREVER)
    process.wait_for(f"step {committed(workdir)[-1] + 2}/")
    # Moved, not deleted file by file: the run still writes.
    (workdir / "tensorboard").rename(tmp_path / "removed")
    assert codes([process]) == [1]
    assert "was removed while this run wrote it" in error_of(process)
    assert hidden(workdir) == []

    saved = json.loads((workdir / ".saved").read_text())["step"]
    shutil.rmtree(workdir / "checkpoints")
    _, err = train(workdir, *FOREVER, code=2)
    assert f"the checkpoints of step {saved} are gone" in err
    assert len(err.strip().splitlines()) == 1
    assert not (workdir / "checkpoints").exists()
