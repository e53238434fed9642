"""The file that --json names: it is checked before anything is measured."""

import json
import os

import pytest

from pipeline import benchmark, plan
from pipeline.performance import figures_file, looped_steps, loops, topologies
from pipeline.performance.frameworks import compare

# main, the first thing that it measures or compiles, and flags that it needs
COMMANDS = {
    "benchmark": (benchmark, (benchmark, "run"), ("--config=configs/beta_vae.py:smoke",)),
    "plan": (plan, (topologies, "load"), ("--config=configs/beta_vae.py", "--topology=cpu:2")),
    "loops": (loops, (looped_steps, "compare"), ()),
    "compare": (compare, (compare, "_compared"), ()),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["file", "dangling link", "virtual disk"])
def test_a_file_that_cannot_be_written_is_known_at_once(
    name, kind, tmp_path, monkeypatch, capsys, pytestconfig
):
    command, (module, slow), flags = COMMANDS[name]
    (tmp_path / "file").touch()
    (tmp_path / "dangling link").symlink_to("/nowhere")
    (tmp_path / "virtual disk").symlink_to("/proc/self")
    file = tmp_path / kind / "new" / "figures.json"
    monkeypatch.chdir(pytestconfig.rootpath)
    for variable in ("JAX_PLATFORMS", "XLA_FLAGS"):  # `plan` sets them
        monkeypatch.setenv(variable, os.environ[variable])
    monkeypatch.setattr(module, slow, lambda *_: pytest.fail("it measures first"))
    monkeypatch.setattr("sys.argv", [name, *flags, f"--json={file}"])
    assert command.main() == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: cannot write to ")
    assert str(tmp_path) in line


def test_the_folder_of_the_file_is_made(tmp_path):
    file = tmp_path / "new" / "deeper" / "figures.json"
    figures_file.write(file, {"µs": 1})
    assert json.loads(file.read_text()) == {"µs": 1}
