"""Training does not depend on its output or its terminal: it saves and keeps its exit code."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.support import commands
from tests.support.environment import xla_flags
from tests.support.processes import ROOT, SCALARS
from tests.support.runs import committed

CONFIG = "--config=configs/beta_vae.py:smoke"


def start(workdir, *, shell='exec "$@"', steps=20, **options):
    """Starts training through a line of bash, in which "$@" is the command."""
    flags = [CONFIG, f"--workdir={workdir}", f"--config.total_steps={steps}", SCALARS]
    flags.append("--config.log_every_steps=1")
    return subprocess.Popen(
        ["bash", "-c", shell, "bash", sys.executable, "-m", "pipeline.train", *flags],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": xla_flags(1), "PYTHONUNBUFFERED": "1"},
        **options,
    )


@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        ('set -o pipefail; "$@" | head -1', "Broken pipe"),
        ('exec "$@" >&-', "it is closed"),
        ('exec "$@" > /dev/full', "No space left on device"),
        ('exec "$@" <&- >&- 2>&-', None),
        ('set -o pipefail; "$@" 2>&1 | head -1', None),
        ('exec "$@" > /dev/full 2>&1', None),
    ],
)
def test_a_run_whose_output_cannot_be_written_is_completed(tmp_path, shell, reason):
    process = start(tmp_path / "run", shell=shell, stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert committed(tmp_path / "run")[-1] == 20
    if reason:
        line = f"warning: stdout cannot be written ({reason}): the run goes on"
        assert err.strip().splitlines() == [line]


def test_a_stop_request_without_any_output_saves_with_its_exit_code(tmp_path):
    process = start(tmp_path / "run", shell='exec "$@" > /dev/full 2>&1', steps=100000)
    wait_for_training(process, tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert committed(tmp_path / "run")


def wait_for_training(process, workdir):
    end = time.monotonic() + 90
    while not list(workdir.glob("checkpoints/[0-9]*")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def test_a_run_whose_output_nobody_reads_goes_on_and_obeys_signals(tmp_path):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = start(tmp_path / "run", steps=100000, **options)
    # A pipe of one page takes one write.
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 2**12)
    wait_for_training(process, tmp_path / "run")
    while not committed(tmp_path / "run"):
        assert process.poll() is None
        time.sleep(0.05)
    first = committed(tmp_path / "run")[-1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert committed(tmp_path / "run")[-1] > first
    said = process.stdout.read()
    process.stdout.close()
    assert said and b"step" not in said


@pytest.mark.usefixtures("signals_of_terminals")
def test_a_closed_terminal_saves_the_run(tmp_path):
    ours, theirs = pty.openpty()
    # The first terminal that the leader of a session opens is that session's own.
    shell = f'exec "$@" <>{os.ttyname(theirs)} >&0 2>&0'
    process = start(tmp_path / "run", shell=shell, steps=100000, start_new_session=True)
    # What a terminal shows is dropped if nobody reads it.
    seen = b""
    while b"step 5/" not in seen:
        seen += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)  # the kernel sends SIGHUP, and every write fails from now on
    assert process.wait(60) == 75
    assert committed(tmp_path / "run")


def test_under_nohup_a_closed_terminal_does_not_stop_the_run(tmp_path):
    process = start(tmp_path / "run", shell='trap "" HUP; exec "$@"', steps=600)
    wait_for_training(process, tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 0
    assert committed(tmp_path / "run")[-1] == 600


def test_what_a_log_cannot_encode_is_escaped(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    out, err = commands.train(tmp_path / "run", "--config.total_steps=1", SCALARS)
    assert "1 \\xd7 cpu" in out
    for command in ("evaluate", "generate"):  # what may be run next
        assert f"python -m pipeline.{command} --workdir={tmp_path / 'run'}\n" in out
    assert "Traceback" not in err
