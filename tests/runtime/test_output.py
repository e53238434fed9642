"""Commands outlast their stdout: their files are complete, and their exit codes sensible."""

import contextlib
import os
import select
import subprocess
import sys
import threading

import pytest

from pipeline.runtime import exit_codes, output
from tests.support.processes import ROOT


def run(command, monkeypatch, tmp_path):
    """Runs the command with a stdout without room; returns its exit code, and stderr's lines."""
    with (
        open("/dev/full", "w") as stdout,
        open(tmp_path / "stderr", "w") as stderr,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        return exit_codes.of(command), (tmp_path / "stderr").read_text().splitlines()


def test_a_command_writes_its_files_though_nobody_can_read_what_it_prints(monkeypatch, tmp_path):
    def command():
        print("x" * 100_000, flush=True)
        (tmp_path / "file").write_text("whole")
        print("more", flush=True)

    line = "warning: stdout cannot be written (No space left on device): the command goes on"
    assert run(command, monkeypatch, tmp_path) == (exit_codes.COMPLETE, [line])
    assert (tmp_path / "file").read_text() == "whole"


def test_a_command_that_only_prints_fails_if_that_is_lost(monkeypatch, tmp_path):
    def command():
        print("a table", flush=True)
        output.check_kept("--json=FILE writes the figures to a file")

    code, (warning, error) = run(command, monkeypatch, tmp_path)
    assert code == exit_codes.FAULT and "cannot be written" in warning
    assert error == "error: what was printed is lost: --json=FILE writes the figures to a file"


def test_a_closed_stdout_was_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert exit_codes.of(lambda: print("x") or output.check_kept("")) == exit_codes.COMPLETE


@pytest.mark.parametrize("module", ["pipeline", "pipeline.evaluate", "pipeline.plan"])
@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "| head -c 1 > /dev/null"])
def test_no_help_ends_in_a_traceback(module, where):
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {where}', "bash", sys.executable, "-m", module,
         "--help"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) <= 1 and "Traceback" not in done.stderr


@pytest.fixture
def full_pipe():
    """Returns both ends of a pipe that takes no more; a stream writes to the second one."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(2**12))
    os.set_blocking(writing, True)
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    os.close(reading)


def test_a_run_goes_on_while_nobody_reads_and_says_later_that_texts_are_left_out(full_pipe):
    reading, stream = full_pipe
    shown = output.Stream(stream, patience=0.1)
    for _ in range(100):
        print("x" * 2000, file=shown, flush=True)
    read = 0
    while output_waits(reading):
        read += len(os.read(reading, 2**20))
    assert read == 2**16  # nothing was written half
    print("y" * 5000, file=shown)
    text = os.read(reading, 2**20).decode()
    assert text.startswith("\n… what was printed while nobody read this is left out …\n")
    assert text.endswith(f"…\n{'y' * 5000}\n")


def output_waits(descriptor):
    return bool(select.select([descriptor], [], [], 0.0)[0])


def test_a_command_waits_for_its_reader(full_pipe):
    reading, stream = full_pipe
    shown = output.Stream(stream)
    writing = threading.Thread(target=lambda: print("x", file=shown, flush=True))
    writing.start()
    writing.join(0.3)
    assert writing.is_alive()
    os.read(reading, 2**20)
    writing.join(10)
    assert os.read(reading, 2**20) == b"x\n"
