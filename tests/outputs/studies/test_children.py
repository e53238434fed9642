"""What a study starts ends as it would by itself, and gets the signals that the study gets."""

import os
import signal
import sys

import pytest

from pipeline.outputs.studies import children

# Says when its handler is there, and ends with 75 once the signal came.
PATIENT = """
import os, signal, sys
signal.signal({number}, lambda number, frame: sys.exit(75))
os.kill({parent}, signal.SIGUSR2)
signal.pause()
"""


def python(program):
    return [sys.executable, "-c", program]


@pytest.mark.parametrize(("program", "code"), [
    ("", 0),
    ("raise SystemExit(2)", 2),
    ("import os; os.kill(os.getpid(), 9)", 137),
    ("import os; os.kill(os.getpid(), 15)", 143),
])  # fmt: skip
def test_the_exit_code_is_the_commands_own(program, code):
    with children.Children() as started:
        assert started.run(python(program)) == code
        assert started.asked is None
    assert (code in children.STOPPED) == (code == 143)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_command_and_nothing_starts_after_it(monkeypatch, number, code):
    before = signal.getsignal(number)
    # The command says that it is ready by SIGUSR2; then the study gets the signal.
    heard = signal.signal(signal.SIGUSR2, lambda *_: os.kill(os.getpid(), number))
    try:
        with children.Children() as started:
            program = PATIENT.format(number=int(number), parent=os.getpid())
            assert started.run(python(program)) == 75
            assert (started.asked, started.code) == (number, code)
            assert started.run(["/nothing/that/could/be/started"]) == code
    finally:
        signal.signal(signal.SIGUSR2, heard)
    assert signal.getsignal(number) == before


def test_a_signal_before_the_first_command_counts():
    with children.Children() as started:
        os.kill(os.getpid(), signal.SIGTERM)
        assert started.run(["/nothing/that/could/be/started"]) == 75
