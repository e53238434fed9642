"""Waiting for data counts only if devices wait."""

import time
import types

import pytest

from pipeline.training.logged import clock


def lap(*ready):
    """Returns the figures after steps whose data took 20 ms; the step before was `ready` or not."""
    speed = clock.Clock(batch_size=8)
    for one in ready:
        began = time.perf_counter()
        time.sleep(0.02)
        speed.waited(began, 2, types.SimpleNamespace(is_ready=lambda one=one: one))
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
    speed.waited(time.perf_counter(), 1, None)
    speed.restart()
    assert speed.lap() == {}


def test_steps_in_flight_belong_to_the_next_lap():
    speed = clock.Clock(batch_size=8)
    speed.waited(time.perf_counter(), 3, None)
    assert speed.lap(in_flight=3) == {}
    figures = speed.lap()
    assert figures["images_per_second"] * figures["ms_per_step"] == pytest.approx(8 * 1000)


def test_the_time_of_an_evaluation_is_left_out_and_its_steps_are_not(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    speed = clock.Clock(batch_size=8)
    for _ in range(3):
        speed.waited(now[0], 1, None)
        now[0] += 0.1
    with speed.left_out():
        now[0] += 5.0
    speed.waited(now[0], 1, None)
    now[0] += 0.1
    assert speed.lap()["ms_per_step"] == pytest.approx(100.0)
