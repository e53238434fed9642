import os
import subprocess
import sys

from tests.support.processes import ROOT


def test_odd_input_works_or_is_refused_in_one_line_with_exit_code_2():
    command = [sys.executable, "-m", "tests.support.fuzz", "--cases=320", "--seed=0"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert done.stdout.endswith("320 cases, 0 wrong\n")
