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
    def waiting(self, num_steps: int, before: Any) -> Iterator[None]:
        """Times the block as waiting for the data of `num_steps` steps.

        The wait counts only if the devices are idle when it ends, which is when `before` is ready.
        `before` is a result of the newest step, or None if there is no step yet.
        """
        began = time.perf_counter()
        yield
        if before is None or before.is_ready():
            self._waited += time.perf_counter() - began
        self._steps += num_steps

    def lap(self) -> dict[str, float]:
        """Returns the figures to log, or none if no step was timed, and starts the next lap."""
        seconds, steps, waited = time.perf_counter() - self._since, self._steps, self._waited
        self.restart()
        if not steps:
            return {}
        return {
            "images_per_second": steps * self._batch_size / seconds,
            "ms_per_step": 1000.0 * seconds / steps,
            "data_wait_share": waited / seconds,
        }
