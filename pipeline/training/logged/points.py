"""The points of logged steps, each written while the devices work on the next dispatch.

To read a step's metrics makes the host wait for that step. If it were the newest one, the devices
would have nothing to do while the host writes: 2 ms in every 50 steps of 3 ms. So a point waits
until another dispatch is launched.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pipeline.display import progress, tensorboard
from pipeline.training.logged import clock, writers


class Points:
    """The metrics of logged steps that wait to be written."""

    def __init__(
        self,
        every_steps: int,
        writer: tensorboard.Writer | writers.Writers,
        shown: progress.Progress,
        speed: clock.Clock,
        paced: Callable[[float], None] = lambda ms_per_step: None,
    ):
        """Logs the multiples of `every_steps` by `writer` and `shown`, with the laps of `speed`.

        `paced` is told the time of a step, if a lap has it.
        """
        self._paced = paced
        self._every, self._writer, self._shown, self._speed = every_steps, writer, shown, speed
        self._waiting: list[tuple[int, Any]] = []

    def add(self, at: int, metrics: dict[str, jax.Array], *, last: bool) -> None:
        """Keeps the metrics of step `at` if it is logged; the last step always is."""
        if last or at % self._every == 0:
            self._waiting.append((at, metrics))

    def due(self, at: int) -> bool:
        """Says whether a point waits whose step is before `at`, the newest."""
        return bool(self._waiting) and self._waiting[0][0] < at

    def write(self, at: int, *, now: bool = False) -> bool:
        """Writes the points before step `at`, the newest, and says whether there were any.

        This waits for the points' steps, but for no later one. Points that are written together
        have one speed: the host learns only now when their steps were done.

        Args:
            at: the newest step.
            now: write the point of step `at`, too.
        """
        read: list[tuple[int, dict[str, Any]]] = []
        while self._waiting and (now or self.due(at)):
            step, metrics = self._waiting.pop(0)
            read.append((step, jax.device_get(metrics)))
        if not read:
            return False
        lap = self._speed.lap(in_flight=at - read[-1][0])
        if lap:
            self._paced(lap["ms_per_step"])
        for step, values in read:
            values |= lap
            for name, value in values.items():
                self._writer.write(f"train/{name}", value, step)
            # Of several replicas, the terminal shows the mean.
            means = {name: np.mean(value) for name, value in values.items()}
            self._shown.update(step, metrics=means)
        self._writer.show()
        return True
