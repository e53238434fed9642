"""Waiting for data counts only if devices wait."""

import time
import types

import pytest

from pipeline.training import clock


def lap(*ready):
    """Returns the figures after steps whose data took 20 ms; the step before was `ready` or not."""
    speed = clock.Clock(batch_size=8)
    for one in ready:
        before = types.SimpleNamespace(is_ready=lambda one=one: one)
        with speed.waiting(2, before):
            time.sleep(0.02)
    return speed.lap()


def test_what_is_waited_while_the_devices_work_costs_nothing():
    assert lap(False, False)["data_wait_share"] == 0.0
    assert lap(True, True)["data_wait_share"] > 0.9
    assert lap(True, False)["data_wait_share"] == pytest.approx(0.5, abs=0.2)


def test_steps_are_counted_and_a_lap_starts_anew():
    figures = lap(True)
    assert figures["ms_per_step"] == pytest.approx(1000 * 8 / figures["images_per_second"])
    assert figures["ms_per_step"] < 1000
    speed = clock.Clock(batch_size=8)
    with speed.waiting(1, None):
        pass
    speed.restart()
    assert speed.lap() == {}
