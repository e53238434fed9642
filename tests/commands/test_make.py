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
