"""Runs commands as a user does: returns what they print, by stream, and their exit codes."""

import os
import subprocess
import sys

from tests.support.environment import xla_flags
from tests.support.processes import ROOT


def start(workdir, *arguments, config="beta_vae.py:smoke", devices=1):
    environment = os.environ | {
        "XLA_FLAGS": xla_flags(devices),
        "NPROC": "2",  # size of the thread pool, on which the last bits depend
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "pipeline.train", f"--config=configs/{config}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def train(workdir, *arguments, code=0, **options):
    return finish(start(workdir, *arguments, **options), code)


def refusal(main, capsys, monkeypatch, *arguments):
    """Returns the one error line of `main` in this process; its exit code must be 2."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    assert main() == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("error: ")
    assert len(captured.err.strip().splitlines()) == 1
    return captured.err
