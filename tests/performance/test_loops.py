"""The command that times loops; speeds themselves are not tested."""

import json
import sys

import pytest

from pipeline.performance import looped_steps, loops
from pipeline.performance.sections import machine


def test_every_form_of_a_work_is_timed(tmp_path, monkeypatch, capsys):
    file, command = tmp_path / "loops.json", loops.COMMAND.module
    monkeypatch.setattr(looped_steps, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(machine, "peak", lambda device, dtype: machine.Peak(1e12, 1e10))
    arguments = [command, "--work=dense_conditional_vae", "--rounds=1", f"--json={file}"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert loops.main() == 0
    found = json.loads(file.read_text())["dense_conditional_vae"]
    assert tuple(found) == looped_steps.FORMS
    plain, parts, shards, together = found.values()
    assert plain["ratio"] == [1.0, 1.0, 1.0]
    assert all(each["ms"] > 0 and each["compile_s"] > 0 for each in found.values())
    assert shards["temporaries_mib"] > plain["temporaries_mib"]  # it keeps eight gradients
    assert 1 == plain["bound"] == together["bound"] < parts["bound"] < shards["bound"]
    shown = capsys.readouterr().out
    assert all(name in shown for name in found)


def test_the_bound_is_the_time_of_the_bytes_that_loops_add(monkeypatch):
    monkeypatch.setattr(machine, "peak", lambda device, dtype: machine.Peak(1e12, 100.0))
    # 7 further parts of 2 reads and a write, and 8 reads: 29 passes over 10 bytes.
    assert looped_steps.bound("deterministic_shards=8", 10, plain=1.0) == pytest.approx(1 + 2.9)
    assert looped_steps.bound("accumulation_steps=4", 10, plain=2.0) == pytest.approx(1 + 1.8 / 2)
    assert looped_steps.bound("steps_per_dispatch=5", 10, plain=1.0) == 1
