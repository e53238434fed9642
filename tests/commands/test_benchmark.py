"""The benchmark: its arithmetic, its sections and its errors. No test checks a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import beta_vae
from pipeline import benchmark
from pipeline.performance import timing
from pipeline.runtime import errors, run_config
from tests.support.environment import OPTIMIZATION

ROOT = Path(__file__).parents[2]


def test_a_ratio_is_the_median_of_paired_rounds():
    seconds = {"one": [2.0, 9.0, 4.0], "other": [1.0, 3.0, 4.0]}
    assert timing.ratio(seconds, "one", "other") == (2.0, 1.5, 2.5)


def test_candidates_run_in_turn_and_every_other_round_backwards():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.in_turn(candidates, rounds=3)
    assert calls == [*"ab", *"ab", *"ba", *"ab"]
    assert {name: len(rounds) for name, rounds in seconds.items()} == {"a": 3, "b": 3}


def test_fields_are_changed_by_name_and_keep_their_type():
    config = beta_vae.get_config("smoke")
    changes = "batch_size=32,model.hidden=(8, 4),optimizer.learning_rate=1,compute_dtype=bfloat16"
    other = run_config.changed(config, changes)
    assert (other.batch_size, tuple(other.model.hidden)) == (32, (8, 4))
    assert (other.optimizer.learning_rate, other.compute_dtype) == (1, "bfloat16")
    assert config.batch_size != 32 and other.model.name == "beta_vae"


@pytest.mark.parametrize(
    ("changes", "words"),
    [("batch=3", "config.field='batch' is unknown"), ("batch_size=many", "like its present value")],
)
def test_a_change_that_cannot_work_is_one_line(changes, words):
    with pytest.raises(errors.InputError, match=words):
        run_config.changed(beta_vae.get_config("smoke"), changes)


def test_the_command_measures_every_section_and_writes_json(tmp_path):
    path = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "pipeline.benchmark", "--config=configs/beta_vae.py:smoke",
        "--rounds=1", "--loop_steps=20", "--against=batch_size=64,steps_per_dispatch=2",
        f"--json={path}",
    ]  # fmt: skip
    one = os.environ | {"XLA_FLAGS": OPTIMIZATION}  # device, not the 64 of the other tests
    result = subprocess.run(command, cwd=ROOT, env=one, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    sections = json.loads(path.read_text())
    assert tuple(sections) == tuple(name for name in benchmark.SECTIONS if name != "sampling")
    assert sections["loop"]["steps a round"] == 20
    assert 0 < sections["step"]["share of the matrix product's rate"] < 2
    assert sections["step"]["GFLOP a step and device"] > 0
    for figures in sections.values():
        for what, figure in figures.items():
            assert isinstance(figure, str) or what in result.stdout


def test_the_command_needs_a_config():
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.benchmark"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == (
        "error: --config is needed: python -m pipeline.benchmark --config=configs/beta_vae.py\n"
    )


def test_a_benchmark_is_of_a_single_run():
    said = "config.replicas=4: a benchmark is of a single run; --against=replicas=4 times the step"
    with pytest.raises(errors.InputError, match=said):
        benchmark.parse(["", "--config=configs/beta_vae.py", "--config.replicas=4"])


@pytest.mark.parametrize(
    ("num", "config", "least"), [(49, "", 50), (1, "--config.steps_per_dispatch=1", 2)]
)
def test_a_loop_has_steps_after_the_launch_that_compiles(num, config, least):
    given = ["", "--config=configs/beta_vae.py", *filter(None, [config])]
    with pytest.raises(errors.InputError, match=f"--loop_steps={num} must be at least {least}, or"):
        benchmark.parse([*given, f"--loop_steps={num}"])
    assert benchmark.parse([*given, f"--loop_steps={least}"]).loop_steps == least
