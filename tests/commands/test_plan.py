"""Plans for machines that aren't there; one plan is checked against this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline import plan as command
from pipeline.mesh import sharding
from pipeline.performance import hlo, planning, topologies
from pipeline.runtime import errors
from pipeline.training import step
from tests.support import small_models
from tests.support.commands import train

# ml_collections needs this to load a config's file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parents[2]
EXAMPLE = small_models.EXAMPLE
HLO = """
%inner (a: f32[4]) -> f32[4] {
  %r = f32[4]{0} all-reduce(%a), replica_groups={}
}
%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %x = f32[4]{0:T(128)S(1)} get-tuple-element(%s), index=1
  %c = f32[4]{0} call(%x), to_apply=%inner
  %n = f32[4]{0} fusion(%c), kind=kLoop, calls=%fused
}
%condition (s: (s32[], f32[4])) -> pred[] {
  %l = pred[] compare(%i, %j), direction=LT
}
ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%t), condition=%condition, body=%body, c={"known_trip_count":{"n":"5"}}
  %g = (bf16[2,4], bf16[16,4]) all-gather-start(%p), replica_groups=[2,8]<=[16], dimensions={0}
  %d = bf16[16,4]{1,0:T(8,128)(2,1)} all-gather-done(%g)
  %b = f32[8]{0} reduce-scatter(%q), replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  %s = (f32[3]{0}, f32[5]{0}) all-reduce(%p, %q), replica_groups=[4,4]<=[4,4]T(1,0), to_apply=%add
  %m = ((f32[3]{0}), f32[3]{0}) all-reduce-start(%p), replica_groups=mesh['a'=4,'b'=2] {'a'}
  %h = (f32[6]{0}, u32[], token[]) send(%s, %t), a={_xla_megascale_transfer_type="ALL_REDUCE"}
}
"""


def plan(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.plan", "--config=configs/beta_vae.py:smoke", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
    )  # fmt: skip


def test_collectives_are_read_with_their_bytes_their_groups_and_whether_a_loop_repeats_them():
    assert hlo.collectives(HLO) == [
        ("all-reduce", "f32", 4, 16, True, 0, 0),
        ("all-gather", "bf16", 64, 128, False, 8, 8),
        ("reduce-scatter", "f32", 8, 32, False, 2, 5),
        ("all-reduce", "f32", 8, 32, False, 4, 13),
        ("all-reduce", "f32", 3, 12, False, 4, 7),
        ("all-reduce between slices", "f32", 6, 24, False, 0, 0),
    ]


def test_operations_are_counted_as_often_as_a_loop_starts_them():
    assert hlo.operations(HLO) == 5 * 3 + 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e", "has another form: write KIND:SHAPE"),
        ("v5p-4096", "write v5p:8x16x16 (the name counts cores)"),
        ("v5litepod-16", "write v5e:4x4 (the name counts chips)"),
        ("v5x:2x2", "'v5x' is unknown; did you mean"),
        ("v5e:3x3", "no slice of 3x3 chips; its neighbours are 2x4 and 4x4"),
        ("v5e:32x32", "no slice of 32x32 chips; its neighbours are 16x16"),
        ("v5p:4x8x6", "no slice of 4x8x6 chips; its neighbours are 4x4x8 and 4x8x8"),
        ("cpu:2x2", "has another form: write cpu:N"),
        ("h100:8", "has another form: write h100:SLICESxHOSTSxGPUS"),
        ("2*cpu:4", "N* counts slices, and only TPUs have them"),
        ("cpu:0", "its sizes must lie between 1 and 4096"),
        ("cpu:999999", "its sizes must lie between 1 and 4096"),
        ("h100:1x0x8", "its sizes must lie between 1 and 4096"),
        ("0*v5e:16x16", "has another form"),
        ("v5e:0x16", "no slice of 0x16 chips"),
    ],
)
def test_a_topology_that_does_not_exist_is_one_line(name, words):
    with pytest.raises(errors.InputError, match=re.escape(words)):
        topologies.parse(name)


@pytest.mark.parametrize(
    ("name", "num_parts"),
    [("v5p:4x4x12", 1), ("4*v5e:4x4", 4), ("h100:1x1x8", 1), ("h100:2x4x8", 8), ("cpu:8", 1)],
)
def test_only_the_network_connects_slices_of_tpus_and_hosts_of_gpus(name, num_parts):
    assert topologies.parse(name).num_parts == num_parts


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


def test_a_sweep_finds_the_largest_batch_that_fits_and_is_within_the_budget(monkeypatch, capsys):
    config = beta_vae.get_config("smoke")
    two = topologies.here(jax.devices()[:2])
    needed = planning.plan(planning.prepare(config, two, 2 * 64), two)["memory"]["total"]
    small = two._replace(chip=two.chip._replace(memory=float(needed)))
    monkeypatch.setattr(topologies, "load", lambda asked: small)

    def sweep(*arguments):
        values = command.parse(
            ["plan", "--config=configs/beta_vae.py:smoke", "--sweep=batch=4096,8,64", *arguments]
        )
        return command.run(values, topologies.parse("cpu:2")), capsys.readouterr().out

    code, out = sweep()
    assert code == 0
    assert "The largest batch that fits: 128" in out
    assert "it does not fit" in out
    code, out = sweep(f"--max_gib={(needed - 1) / 2**30}")
    assert code == 0
    assert "The largest batch that fits: 16" in out
    assert sweep("--max_gib=0.001")[0] == 3
    with pytest.raises(errors.InputError, match="write batch=64,128,256"):
        planning.sweep("64", config, two)


@pytest.mark.parametrize("variant", ["beta", "capacity", "concat", "vq"])
def test_bytes_and_operations_a_device_are_equal_on_any_number_of_devices(variant, monkeypatch):
    config = small_models.make_config(variant)
    monkeypatch.setattr(datasets, "example_spec", lambda config: EXAMPLE)
    plans = []
    for num in (2, 8, 64):
        here = topologies.here(jax.devices()[:num])
        plans.append(planning.plan(planning.prepare(config, here, 4 * num), here))
    assert not any(each["in_loop"] for each in plans[0]["collectives"])
    for other in plans[1:]:
        assert other["flops_per_example"] == plans[0]["flops_per_example"] > 0
        for each, first in zip(other["collectives"], plans[0]["collectives"], strict=True):
            assert each["bytes"] == first["bytes"]
            assert each["kind"] == first["kind"] == "all-reduce"


@pytest.mark.parametrize(
    ("variant", "scalars"), [("beta", 0), ("capacity", 1), ("concat", 0), ("vq", 0)]
)
def test_any_compiler_is_given_one_all_reduce_of_float32(variant, scalars):
    config = small_models.make_config(variant, compute_dtype="bfloat16")
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:8])
    batch, stop = small_models.batch_on(mesh, small_models.IMAGES)
    state = step.abstract_state(config, EXAMPLE)
    lowered = step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop)
    module = lowered.as_text()
    assert re.findall(r"stablehlo\.(all_\w+|reduce_scatter|collective_\w+)", module) == [
        "all_reduce"
    ] * (1 + scalars)
    added = re.findall(r"stablehlo\.all_reduce.*?\}\) : \(tensor<(\w+)>", module, re.DOTALL)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    *first, flat = [each.rpartition("x") for each in added]
    assert [dtype for *_, dtype in first] == ["f32"] * scalars
    assert flat[2] == "f32" and num_params < int(flat[0]) < 3 * num_params


@pytest.mark.parametrize("variant", ["beta", "vq"])
def test_accumulation_puts_no_collective_into_its_loop(variant):
    config = small_models.make_config(variant, accumulation_steps=4)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:2])
    batch, stop = small_models.batch_on(mesh, small_models.IMAGES)
    state = step.abstract_state(config, EXAMPLE)
    lowered = step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop)
    (found,) = hlo.collectives(lowered.compile().as_text())
    assert found.kind == "all-reduce" and found.dtype == "f32" and not found.in_loop


def test_without_the_compiler_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    for name, extra in (("v5e:2x2", "plan-tpu"), ("h100:1x1x8", "plan-gpu")):
        with pytest.raises(errors.InputError, match=rf"pip install -e '\.\[{extra}\]'"):
            topologies.prepare(topologies.parse(name))


def test_a_config_that_does_not_divide_is_refused_before_compiling():
    config = beta_vae.get_config("smoke")
    with pytest.raises(errors.InputError, match="not divisible by 3 devices"):
        planning.prepare(config, topologies.here(jax.devices()[:3]), 128)
