"""`make` without a target explains the targets, and needs no environment."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_bare_make_lists_every_target_with_a_line_and_builds_nothing(tmp_path):
    shutil.copy(MAKEFILE, tmp_path)
    result = subprocess.run(
        ["make"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    for target in targets.split():
        (line,) = [line for line in lines if line.startswith(f"  {target} ")]
        assert line.endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_a_commit_is_checked_by_the_commands_of_make_check():
    hooks = yaml.safe_load((MAKEFILE.parent / ".pre-commit-config.yaml").read_text())["repos"][0]
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE.read_text(), re.MULTILINE)
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert [hook["entry"] for hook in hooks["hooks"]] == commands


def variable(name, *arguments):
    """Returns the value that make gives a variable; runs no recipe."""
    text = f"{MAKEFILE.read_text()}\nshow:\n\t@echo $({name})\n"
    result = subprocess.run(
        ["make", "-s", "-f", "-", "show", *arguments],
        input=text,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_pod_and_a_single_process_have_workdirs_of_their_own():
    assert variable("WORKDIR") == "runs/beta_vae"
    assert variable("POD_WORKDIR") == "runs/beta_vae_pod"
    assert variable("POD_WORKDIR", "CONFIG=configs/vq_vae.py:smoke") == "runs/vq_vae_pod"
    assert variable("POD_WORKDIR", "WORKDIR=runs/a") == "runs/a"
