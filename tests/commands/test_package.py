"""What a package index and an installed package say: one version, types, the files of configs."""

import subprocess
import sys
import tomllib

import pipeline
from tests.support.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_has_one_source_and_needs_no_jax():
    program = "import sys, pipeline; print(pipeline.__version__, 'jax' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == f"{pipeline.__version__} False\n"
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pipeline.__version__"}


def test_types_templates_and_configs_are_in_the_package():
    assert (ROOT / "pipeline" / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["pipeline"]
    assert "configs*" in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]


def test_the_list_of_commands_and_the_version_are_shown_in_any_encoding():
    for argument, words in (("--help", "train"), ("--version", pipeline.__version__)):
        found = subprocess.run(
            [sys.executable, "-m", "pipeline", argument],
            cwd=ROOT,
            env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert (found.returncode, found.stderr) == (0, "")
        assert words in found.stdout
