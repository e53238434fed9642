import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.processes import ROOT

# Marks nothing for longer than the limit, unless it is stopped for that time.
STILL = """
import sys, time
from pipeline.runtime import peers, watchdog
with watchdog.Watchdog(2.0, peers.alone()) as watched:
    watched.mark("working")
    print("ready", flush=True)
    for _ in range(int(sys.argv[1])):
        time.sleep(0.1)
"""


@pytest.fixture
def still(request):
    command = [sys.executable, "-c", STILL, str(request.param)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("still", [10], indirect=True)
def test_time_in_which_a_process_was_stopped_does_not_count(still):
    os.kill(still.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(still.pid, signal.SIGCONT)
    assert still.wait(30) == 0, still.stderr.read()


@pytest.mark.parametrize("still", [200], indirect=True)
def test_a_process_without_progress_ends_with_its_stacks(still):
    began = time.monotonic()
    assert still.wait(30) == 75
    assert 1.5 < time.monotonic() - began < 10
    text = still.stderr.read()
    assert "working made no progress for 2 s (config.watchdog_seconds=2)" in text
    assert "Thread" in text
