"""`python -m pipeline`, which lists the commands, and the script that runs them by name."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline import __main__ as script

ROOT = Path(__file__).parents[2]
COMMANDS = {"train", "study", "generate", "evaluate", "export", "prepare", "plan", "benchmark"}


@pytest.fixture
def run(tmp_path):
    """Runs `python -m pipeline` with a JAX that cannot be imported."""
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')\n")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_commands_are_listed_a_line_each_with_how_to_go_on(run, arguments):
    result = run(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert set(listed) >= COMMANDS and listed == list(script.names())
    assert "vae-pipeline train --help" in result.stdout
    assert "python -m pipeline.train --help" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_runs_by_its_name(run, name):
    result = run(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"usage: python -m pipeline.{name}" in result.stdout


def test_the_exit_code_and_the_error_line_are_the_commands_own(run):
    result = run("plan")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --topology is needed")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trian", "error: 'trian' is no command; did you mean train?\n"),
        (
            "--config=x",
            "choose one of benchmark, evaluate, export, generate, plan, prepare, study, train",
        ),
        ("runtime", "'runtime' is no command"),
        ("__main__", "'__main__' is no command"),
    ],
)
def test_an_unknown_command_is_one_line_with_exit_code_2(run, name, words):
    result = run(name)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_installed_script_is_this_one():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["vae-pipeline"].partition(":")
    assert (module, getattr(script, function)) == ("pipeline.__main__", script.main)
