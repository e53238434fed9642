"""Plans for TPUs and GPUs by their own compilers; skipped if these are not installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from pipeline.performance import planning, topologies
from tests.support import small_models

ROOT = Path(__file__).parents[2]


def needs(platform):
    package, extra = topologies.EXTRAS[platform]
    missing = importlib.util.find_spec(package.partition(".")[0]) is None or (
        importlib.util.find_spec(package) is None
    )
    return pytest.mark.skipif(missing, reason=f"needs pip install -e '.[{extra}]'")


@pytest.fixture(autouse=True)
def no_traces():
    """Restores the compilers' settings after the test."""
    environment = dict(os.environ)
    efforts = {name: getattr(jax.config, name, None) for name in planning.QUICK}
    yield
    os.environ.clear()
    os.environ.update(environment)
    for name, value in efforts.items():
        if value is not None:
            jax.config.update(name, value)


def plan(name, *, variant="beta", batch_size=8, **changes):
    """Plans a small network on full-sized images, with `batch_size` examples a device."""
    asked = topologies.parse(name)
    topologies.prepare(asked)
    topology = topologies.load(asked)
    planning.set_effort("quick", topology)
    config = small_models.make_config(variant, **changes)
    ready = planning.prepare(config, topology, batch_size * len(topology.devices))
    return planning.plan(ready, topology)


def check_one_all_reduce(found, *, sums, scalars=0):
    """Checks for one all-reduce of parameters and sums in float32, and for the scalars before."""
    *first, flat = found["collectives"]
    assert [each["elements"] for each in first] == [1] * scalars
    assert {each["kind"] for each in found["collectives"]} == {"all-reduce"}
    assert {each["dtype"] for each in found["collectives"]} == {"f32"}
    assert not any(each["in_loop"] for each in found["collectives"])
    assert flat["elements"] == found["parameters"] + sums
    assert found["fits"]


@pytest.mark.tpu
@needs("tpu")
class TestTPU:
    @pytest.mark.parametrize("name", ["v5e:2x2", "v5e:16x16", "v5p:4x4x4"])
    def test_there_is_one_all_reduce_at_any_size(self, name):
        found = plan(name)
        check_one_all_reduce(found, sums=3)  # reconstruction, KL, stop
        assert found["flops_per_example"] == plan("cpu:1")["flops_per_example"]

    def test_capacity_control_adds_a_scalar(self):
        check_one_all_reduce(plan("v5e:2x2", variant="capacity"), sums=4, scalars=1)

    def test_bfloat16_and_accumulation_change_nothing(self):
        changes = {"compute_dtype": "bfloat16", "accumulation_steps": 2}
        check_one_all_reduce(plan("v5e:2x2", **changes), sums=3)

    def test_between_slices_each_device_sends_its_part_of_the_sum_alone(self):
        found = plan("4*v5e:4x4")
        inside, between, back = found["collectives"]
        kinds = ["all-reduce", "all-reduce between slices", "all-gather"]
        assert [each["kind"] for each in (inside, between, back)] == kinds
        assert {each["dtype"] for each in found["collectives"]} == {"f32"}
        buffer = 4 * (found["parameters"] + 3)
        tiles = 16 * 8 * 128 * 4  # a chip's part is padded to whole tiles
        assert buffer <= 16 * between["bytes"] < buffer + tiles
        assert found["sent_bytes"]["beyond"] == 2 * between["bytes"] * 3 / 4

    def test_a_step_that_does_not_fit_has_a_code_of_its_own(self):
        result = subprocess.run(
            [sys.executable, "-m", "pipeline.plan", "--config=configs/beta_vae.py:smoke",
             "--topology=v5e:2x2", f"--config.batch_size={4 * 2**22}"],
            cwd=ROOT, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert result.returncode == 2, result.stderr
        assert "it does not fit" in result.stdout

    def test_remat_needs_less_memory_and_more_operations(self):
        network = {"model.network": "scalable", "model.downsampling": 1, "model.channels": 32}
        network |= {"model.channel_multipliers": (1,), "model.blocks_per_level": 4}
        plain, again = (
            plan("v5e:2x2", variant="vq", **network, **{"model.remat": remat})
            for remat in (False, True)
        )
        assert again["memory"]["temporaries"] < 0.7 * plain["memory"]["temporaries"]
        assert again["flops_per_example"] > plain["flops_per_example"]


@pytest.mark.gpu
@needs("cuda")
class TestGPU:
    @pytest.mark.parametrize("name", ["h100:1x1x8", "h100:1x32x8"])
    def test_there_is_one_all_reduce_at_any_size(self, name):
        check_one_all_reduce(plan(name), sums=3)

    def test_what_does_not_fit_is_found_here(self):
        assert not plan("a100:1x1x8", batch_size=2**22)["fits"]
