"""Damage that is small enough for every run of the tests; `tests.support.damage` does more."""

import os
import subprocess
import sys

from tests.support.environment import xla_flags
from tests.support.processes import ROOT


def test_a_damaged_file_of_a_run_is_found_or_harmless():
    command = [sys.executable, "-m", "tests.support.damage", "--share=0.03"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "cases" in done.stdout
