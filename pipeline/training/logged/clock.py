"""The speed of training, as it is logged.

The host launches steps ahead of the devices. A wait for data costs nothing while the devices still
work on the step before, so such a wait is not counted.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any


class Clock:
    """Measures the speed since the last lap, and the share in which devices waited for data."""

    def __init__(self, batch_size: int):
        """Starts the first lap; a step has `batch_size` examples."""
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Starts the lap again: what was timed since the last lap does not count."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """Leaves the time of the block out of the lap; the devices have finished all steps."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def waited(self, since: float, num_steps: int, before: Any) -> None:
        """Counts `num_steps` steps, whose data came now.

        The wait counts only if the devices are idle now, which they are if `before` is ready.

        Args:
            since: `time.perf_counter()` when the data were asked for.
            num_steps: how many steps are launched with these data.
            before: a result of the newest step, or None if there is no step yet.
        """
        if before is None or before.is_ready():
            self._waited += time.perf_counter() - since
        self._steps += num_steps

    def lap(self, *, in_flight: int = 0) -> dict[str, float]:
        """Returns the figures to log, or none if no step was timed, and starts the next lap.

        Args:
            in_flight: steps that were launched after those of this lap, and belong to the next one.
        """
        seconds, steps = time.perf_counter() - self._since, self._steps - in_flight
        waited = self._waited
        self.restart()
        self._steps = in_flight
        if steps <= 0:
            return {}
        return {
            "images_per_second": steps * self._batch_size / seconds,
            "ms_per_step": 1000.0 * seconds / steps,
            "data_wait_share": waited / seconds,
        }
