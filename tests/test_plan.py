"""Planning for machines that aren't there, and its check against this one."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs import beta_vae
from pipeline import errors, planning, program, sharding, topologies
from tests import test_step
from tests.test_train import train

ROOT = Path(__file__).parents[1]
EXAMPLE = test_step.EXAMPLE
HLO = """
%inner (a: f32[4]) -> f32[4] {
  %r = f32[4]{0} all-reduce(%a), replica_groups={}
}
%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %c = f32[4]{0} call(%a), to_apply=%inner
}
%condition (s: (s32[], f32[4])) -> pred[] {
}
ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%t), condition=%condition, body=%body
  %g = (bf16[2,4], bf16[16,4]) all-gather-start(%p), dimensions={0}
  %s = (f32[3]{0}, f32[5]{0}) all-reduce(%p, %q), to_apply=%add
}
"""


def plan(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.plan", "--config=configs/beta_vae.py:smoke", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
    )  # fmt: skip


def test_collectives_are_read_with_their_bytes_and_whether_a_loop_repeats_them():
    assert program.collectives(HLO) == [
        ("all-reduce", "f32", 4, 16, True),
        ("all-gather", "bf16", 64, 128, False),
        ("all-reduce", "f32", 8, 32, False),
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e", "has another form: write KIND:SHAPE"),
        ("v5x:2x2", "'v5x' is unknown; did you mean"),
        ("v5e:3x3", "no slice of 3x3 chips; its neighbours are 2x4 and 4x4"),
        ("v5e:32x32", "no slice of 32x32 chips; its neighbours are 16x16"),
        ("cpu:2x2", "has another form: write cpu:N"),
        ("h100:8", "has another form: write h100:SLICESxHOSTSxGPUS"),
        ("2*cpu:4", "counts slices of TPUs alone"),
    ],
)
def test_a_topology_that_does_not_exist_is_one_line(name, words):
    with pytest.raises(errors.InputError, match=re.escape(words)):
        topologies.parse(name)


def test_the_plan_of_virtual_devices_is_what_a_run_on_them_compiles(tmp_path):
    path = tmp_path / "plan.json"
    result = plan("--topology=cpu:8", f"--json={path}")
    assert result.returncode == 0, result.stderr
    (planned,) = json.loads(path.read_text())
    out, _ = train(tmp_path / "run", "--dry_run", devices=8)
    found = re.search(r"all-reduce of ([\d,]+) f32, ([\d,]+) bytes", out)
    (each,) = planned["collectives"]
    assert [int(text.replace(",", "")) for text in found.groups()] == [
        each["elements"],
        each["bytes"],
    ]
    assert each["elements"] == planned["parameters"] + 3  # reconstruction, KL, stop
    memory = re.search(r"memory a device +([\d,.]+) MiB", out)[1].replace(",", "")
    assert float(memory) == pytest.approx(planned["memory"]["total"] / 2**20, rel=0.01)
    assert not (tmp_path / "run").exists()


def test_a_budget_that_is_exceeded_has_a_code_of_its_own():
    result = plan("--topology=cpu:2", "--max_collectives=0", "--max_gib=0.0001")
    assert result.returncode == 3
    assert "1 collectives exceed --max_collectives=0" in result.stdout
    assert "exceed --max_gib=0.0001" in result.stdout


@pytest.mark.parametrize("variant", ["beta", "capacity", "concat", "vq"])
def test_bytes_and_operations_a_device_are_equal_on_any_number_of_devices(variant, monkeypatch):
    config = test_step.make_config(variant)
    plans = []
    monkeypatch.setattr(planning.data, "example_spec", lambda config: EXAMPLE)
    for num in (2, 64):
        topology = topologies.here(jax.devices()[:num])
        plans.append(planning.plan(config, topology, 4 * num))
    two, many = plans
    assert [c["bytes"] for c in two["collectives"]] == [c["bytes"] for c in many["collectives"]]
    assert many["flops_per_example"] == pytest.approx(two["flops_per_example"], rel=0.02)
    assert not any(c["in_loop"] for c in many["collectives"])


def test_accumulation_puts_no_collective_into_its_loop():
    config = test_step.make_config("beta")
    config.accumulation_steps = 4
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:2])
    batch, stop = test_step.batch_on(mesh, test_step.IMAGES)
    state = planning.step.abstract_state(config, EXAMPLE)
    lowered = planning.step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop)
    (found,) = program.collectives(lowered.compile().as_text())
    assert found.kind == "all-reduce" and found.dtype == "f32" and not found.in_loop


def test_without_the_compiler_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    for name, extra in (("v5e:2x2", "plan-tpu"), ("h100:1x1x8", "plan-gpu")):
        with pytest.raises(errors.InputError, match=rf"pip install -e '\.\[{extra}\]'"):
            topologies.prepare(topologies.parse(name))


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu isn't installed")
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5e:16x16", "v5p:4x4x4"])
def test_on_tpus_there_is_one_all_reduce_of_parameters_and_sums(tmp_path, topology):
    path = tmp_path / "plan.json"
    result = plan(f"--topology={topology}", "--config.batch_size=4096", f"--json={path}")
    assert result.returncode == 0, result.stderr
    (planned,) = json.loads(path.read_text())
    (each,) = planned["collectives"]
    assert (each["kind"], each["dtype"]) == ("all-reduce", "f32")
    assert each["elements"] == planned["parameters"] + 3


def test_a_config_that_does_not_divide_is_refused_before_compiling():
    config = beta_vae.get_config("smoke")
    with pytest.raises(errors.InputError, match="not divisible by 3 devices"):
        planning.plan(config, topologies.here(jax.devices()[:3]), 128)
