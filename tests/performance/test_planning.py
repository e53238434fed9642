"""A plan of several seeds counts all of them."""

import jax
import pytest

from pipeline.performance import planning, topologies
from pipeline.training import batching, setup
from tests.support import small_models


def test_a_plan_of_replicas_counts_the_images_of_all_and_the_work_of_one():
    devices = jax.devices()[:1]
    topology = topologies.here(devices)

    def planned(replicas):
        config = small_models.make_config("beta", replicas=replicas)
        return planning.plan(setup.prepare(config, devices=devices, open_data=False), topology)

    one, three = planned(1), planned(3)
    assert one["parameters"] == three["parameters"]
    # The speed of a CPU is unknown.
    assert one["images_per_second"] is one["input_bytes_per_second_and_host"] is None
    # But for the sums over examples that do not depend on the seed.
    assert three["flops_per_example"] == pytest.approx(one["flops_per_example"], rel=1e-4)
    assert three["memory"]["arguments"] > 2 * one["memory"]["arguments"]
    assert planning.rows(three, topology)["replicas"] == "3"
    assert "replicas" not in planning.rows(one, topology)


@pytest.mark.parametrize("platform", ["cpu", "known"])
def test_a_plan_counts_resident_examples_if_it_knows_how_many_there_are(platform):
    devices = jax.devices()[:1]
    topology = topologies.here(devices)
    if platform == "known":
        chip = topology.chip._replace(
            platform="cuda",
            memory=1e6,
            bfloat16=1e12,
            float32=1e12,
            bandwidth=1e11,
            link=1e11,
            network=1e10,
        )
        topology = topology._replace(chip=chip)

    def planned(**options):
        config = small_models.make_config("beta", **{"data.resident": True})
        return planning.plan(setup.prepare(config, devices=devices, **options), topology)

    opened, closed = planned(open_data=True), planned(open_data=False)
    ready = setup.prepare(small_models.make_config("beta"), devices=devices)
    size = len(ready.opened.train) * batching.example_bytes(ready.config)
    assert opened["memory"]["examples"] == size > 0
    assert opened["memory"]["total"] == closed["memory"]["total"] + size
    assert "resident examples" not in planning.rows(opened, topology)
    assert "examples" not in closed["memory"]
    each = batching.example_bytes(ready.config)
    assert planning.rows(closed, topology)["resident examples"].startswith(f"not counted: {each:,}")
    if platform == "known":
        assert not opened["fits"]
        rate, images = opened["input_bytes_per_second_and_host"], opened["images_per_second"]
        assert rate == [4 * number for number in images]
