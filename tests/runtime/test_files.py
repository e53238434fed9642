"""A file is whole, old or new: after a kill, on a full disk, and with several writers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime import files

ROOT = Path(__file__).parents[2]
KILLED = """
import os, pathlib, sys
from pipeline.runtime import files
with files.replacing(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


def test_a_killed_writer_leaves_the_old_file_and_its_rest_is_removed_a_day_later(tmp_path):
    path = tmp_path / "a[1].json"
    files.write(path, "old")
    died = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert died.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = (one for one in tmp_path.iterdir() if one != path)

    files.write(path, "new")
    assert left.exists()  # another process may still be writing it
    os.utime(left, (0, 0))
    files.write(path, "newer")
    assert [one.name for one in tmp_path.iterdir()] == ["a[1].json"]
    assert path.read_text() == "newer"


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, full_disk):
    path = tmp_path / "a.json"
    files.write(path, "old")
    with pytest.raises(OSError, match=r"cannot write to .*a\.json"):
        files.write(path, "new" * 4096)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_writers_at_the_same_time_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with files.replacing(path) as one, files.replacing(path) as other:
        one.write(b"one" * 1000)
        other.write(b"other")
    assert path.read_bytes() == b"one" * 1000  # which was renamed last
    assert len(list(tmp_path.iterdir())) == 1


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), files.replacing(tmp_path / "a") as file:
        file.write(b"half")
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_others_may_read_the_file_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    files.write(tmp_path / "a", "")
    os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_device_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with files.replacing(tmp_path / "pipe") as file:
        file.write(b"text")
    assert os.read(read, 9) == b"text"
    os.close(read)
    assert (tmp_path / "pipe").is_fifo()
