"""A plan of several seeds counts all of them."""

import jax
import pytest

from pipeline.performance import planning, topologies
from pipeline.training import setup
from tests.support import small_models


def test_a_plan_of_replicas_counts_the_images_of_all_and_the_work_of_one():
    devices = jax.devices()[:1]
    topology = topologies.here(devices)

    def planned(replicas):
        config = small_models.make_config("beta", replicas=replicas)
        return planning.plan(setup.prepare(config, devices=devices, open_data=False), topology)

    one, three = planned(1), planned(3)
    assert one["parameters"] == three["parameters"]
    # The speed of a CPU is unknown, and a step counts as one second.
    assert (one["images_per_second"], three["images_per_second"]) == ([64, 64], [192, 192])
    # But for the sums over examples that do not depend on the seed.
    assert three["flops_per_example"] == pytest.approx(one["flops_per_example"], rel=1e-4)
    assert three["memory"]["arguments"] > 2 * one["memory"]["arguments"]
    assert planning.rows(three, topology)["replicas"] == "3, all of which count in images/s"
    assert "replicas" not in planning.rows(one, topology)
