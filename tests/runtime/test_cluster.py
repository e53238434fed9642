"""Commands of several processes that cannot resume: what ends one process ends all."""

import subprocess
import sys

import pytest

from tests.support.processes import ROOT, free_port

PROGRAM = """
import os, signal, sys, time, types
from pipeline.runtime import cluster, errors, exit_codes

port, process, way = sys.argv[1:]
options = types.SimpleNamespace(
    distributed="auto", coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=int(process)
)

def command():
    with cluster.joined(options, "evaluating"):
        if process == "1" and way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if process == "1" and way == "input":
            raise errors.InputError("there is no such file")
        if process == "0" and way != "well":
            time.sleep(60)

exit_codes.leave(exit_codes.of(command))
"""


@pytest.mark.parametrize(
    ("way", "codes", "words"),
    [
        ("well", [0, 0], ""),
        ("killed", [1, -9], "process 1"),
        ("input", [2, 2], "evaluating: there is no such file"),
    ],
)
def test_what_ends_one_process_ends_both(way, codes, words):
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(process), way],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for process in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=55)[1] for process in both]
    assert [process.returncode for process in both] == codes, said
    assert words in said[0]
    assert "Traceback" not in said[0]
