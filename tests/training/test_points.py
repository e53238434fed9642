"""A point is written after the next launch, and its speed is that of its own steps."""

import types

import jax.numpy as jnp

from pipeline.training.logged import clock, points


class Seen:
    """A writer and a display that keep what they get."""

    def __init__(self):
        self.points, self.shown, self.flushed = [], [], 0

    def write(self, tag, value, step):
        self.points.append((tag, float(value), step))

    def update(self, step, *, metrics):
        self.shown.append((step, set(metrics)))

    def show(self):
        self.flushed += 1


def logged(every=2):
    """Returns points, where they go, and the clock that they read."""
    seen, speed = Seen(), clock.Clock(batch_size=8)
    return points.Points(every, seen, seen, speed), seen, speed


def test_a_point_is_due_only_after_a_later_step_and_is_written_once():
    one, seen, _ = logged()
    one.add(1, {"loss": jnp.float32(1.0)}, last=False)
    assert not one.due(2) and not one.write(2)
    one.add(2, {"loss": jnp.float32(2.0)}, last=False)
    assert not one.due(2) and one.due(3)
    one.add(3, {"loss": jnp.float32(3.0)}, last=False)
    assert one.write(3) and not one.write(3)
    assert seen.points == [("train/loss", 2.0, 2)]
    assert seen.shown == [(2, {"loss"})] and seen.flushed == 1


def test_a_step_that_is_logged_after_another_loses_neither():
    one, seen, _ = logged(every=1)
    for at in range(1, 4):
        one.add(at, {"loss": jnp.float32(at)}, last=False)
        assert one.due(at) == one.write(at) == (at > 1)
    assert one.write(3, now=True)
    assert [step for tag, _, step in seen.points if tag == "train/loss"] == [1, 2, 3]


def test_the_last_step_is_logged_whatever_its_number():
    one, seen, _ = logged(every=50)
    one.add(7, {"loss": jnp.float32(7.0)}, last=True)
    assert not one.write(7) and one.write(7, now=True)
    assert seen.points == [("train/loss", 7.0, 7)]


def test_steps_in_flight_count_for_the_next_point(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    one, seen, speed = logged(every=4)
    for at in range(1, 10):
        now[0] += 0.01 if at < 6 else 0.02  # the point of step 4 is written at that of step 5
        speed.waited(now[0], 1, None)
        one.add(at, {}, last=False)
        one.write(at)
    found = [(step, round(value, 6)) for tag, value, step in seen.points if "ms" in tag]
    assert found == [(4, 12.5), (8, 20.0)]


def test_points_that_are_written_together_share_the_speed_of_all_their_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    one, seen, speed = logged(every=5)
    for at in (5, 10):  # a dispatch of five steps each, and a save after the second
        now[0] += 0.1
        speed.waited(now[0], 5, None)
        one.add(at, {}, last=False)
        one.write(at, now=at == 10)
    found = [(step, round(value, 6)) for tag, value, step in seen.points if "ms" in tag]
    assert found == [(5, 20.0), (10, 20.0)]
