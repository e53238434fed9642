"""Disk faults in a real run: one error line, nothing is lost, and the same command resumes."""

import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.support import faults, processes
from tests.support.commands import train
from tests.support.runs import scalars

ARGUMENTS = ("--config.total_steps=60", "--config.checkpoint.keep_every_steps=1")


@pytest.fixture
def disk(tmp_path):
    """Mounts a separate disk; returns its folder, and what mounts it again with new options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    yield folder, remount
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def the_line(err, reason, path):
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert f"cannot write to {path}" in line
    assert f"({reason})" in line
    assert err.strip().endswith(line)


def test_a_disk_that_fills_up_stops_the_run_which_then_goes_on(disk):
    folder, remount = disk
    workdir = folder / "run"
    train(workdir, "--config.total_steps=20", *ARGUMENTS[1:])
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    remount(f"size={used + 2**21}")
    _, err = train(workdir, *ARGUMENTS, code=1)
    the_line(err, "No space left on device", workdir)
    assert (workdir / "checkpoints" / "20").is_dir()
    remount("size=64m")
    out, _ = train(workdir, *ARGUMENTS)
    assert "20 of 60 done" in out
    assert [step for step, _ in scalars(workdir)["train/loss"]] == [10, 20, 30, 40, 50, 60]


def test_a_full_disk_ends_all_processes_within_a_minute_and_says_so_on_one(disk, tmp_path):
    folder, _ = disk
    workdir = folder / "run"
    logs = {"processes": 2, "logs": tmp_path / "logs"}
    every = ("--config.total_steps=100000", "--config.checkpoint.every_steps=20")
    group = processes.start(workdir, *every, "--config.eval_every_steps=100000", **logs)
    group[0].wait_for("step 30/")
    while not (workdir / "checkpoints" / "20").is_dir():
        assert group[0].poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    with (folder / "filler").open("wb", buffering=0) as filler:
        while group[0].poll() is None and time.monotonic() - began < 60:
            try:
                filler.write(bytes(2**16))
            except OSError:  # continues: removing a checkpoint frees its space
                time.sleep(0.01)
    found = processes.codes(group)
    assert time.monotonic() - began < 60
    assert found == [1, 1]
    assert all("No space left on device" in process.output for process in group)
    assert not any("Traceback" in process.output for process in group)
    good = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    assert good
    (folder / "filler").unlink()
    at = max(int(path.name) for path in good) + 10
    processes.train(workdir, f"--config.total_steps={at}", *every[1:])


def test_a_save_that_fails_on_one_process_ends_all_although_they_wait_for_it(tmp_path):
    arguments = ("--config.total_steps=100000", "--config.checkpoint.every_steps=20")
    logs = {"processes": 2, "logs": tmp_path / "logs"}
    group = processes.start(tmp_path / "run", *arguments, **logs)
    while not (tmp_path / "run" / "checkpoints" / "20").is_dir():
        assert group[0].poll() is None
        time.sleep(0.01)
    faults.unable_to_write(None, group[1:], random.Random(0))
    assert processes.codes(group) == [1, 1]
    text = f"cannot write to {tmp_path}/run/checkpoints (File too large)"
    assert f"error: {text}" in group[1].output
    assert "error: process 1 on " in group[0].output
    assert text in group[0].output
    processes.train(tmp_path / "run", "--config.total_steps=100", *arguments[1:])


def test_a_file_of_data_that_is_shortened_ends_the_run_with_the_place_where_it_was_read(tmp_path):
    images = np.zeros((2000, 64, 64, 1), np.uint8)
    np.save(tmp_path / "image.npy", images)
    (process,) = processes.start(
        tmp_path / "run",
        "--config.total_steps=100000",
        f"--config.data.path={tmp_path}/image.npy",
        "--config.data.heldout_examples=200",
        config="beta_vae.py:arrays,smoke",
    )
    process.wait_for("step 10/")
    os.truncate(tmp_path / "image.npy", 2**12)
    assert processes.codes([process]) == [-signal.SIGBUS]
    assert "Fatal Python error: Bus error" in process.output
    assert "datasets/arrays.py" in process.output


def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "log1.0").symlink_to("/dev/full")
    steps = "--config.total_steps=20"
    group = processes.start(tmp_path / "run", steps, processes=2, logs=logs)
    assert processes.codes(group) == [0, 0]
    assert (tmp_path / "run" / "checkpoints" / "20").is_dir()
    assert group[0].log.is_char_device()


def test_a_disk_without_room_for_anything_is_one_line(disk):
    folder, remount = disk
    (folder / "filler").write_bytes(bytes(2**20))
    remount("size=1m")
    _, err = train(folder / "run", code=1)
    the_line(err, "No space left on device", folder / "run")


def test_a_read_only_disk_is_one_line(disk):
    folder, remount = disk
    remount("ro")
    _, err = train(folder / "run", code=1)
    the_line(err, "Read-only file system", folder / "run")
