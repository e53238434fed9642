import signal
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

# A process that never asks whether it should stop.
BUSY = """
import time
from pipeline.runtime import signals
stop = signals.StopRequest()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def busy(signals_of_terminals):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("first", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGQUIT, 75)],
)
def test_a_second_signal_by_ctrl_c_leaves_at_once(busy, first, code):
    busy.send_signal(first)
    # The line shows that the signal was handled: two pending signals would count as one.
    said = f"{first.name}: saving after the steps under way, then leaving\n"
    assert busy.stderr.readline() == said
    busy.send_signal(signal.SIGINT)
    assert busy.wait(30) == code
    assert busy.stderr.read().startswith("second signal: leaving at once")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number):
    code = "import signal; from pipeline.runtime import signals; signals.StopRequest()"
    shown = f"print(signal.getsignal({int(number)}) == signal.SIG_IGN)"
    line = f"trap '' {number.name[3:]}; exec {sys.executable} -c '{code}; {shown}'"
    result = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "True\n", result.stderr
