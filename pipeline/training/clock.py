"""The speed of training, as it is logged.

The decision: to wait for data costs nothing while the devices still work on the step before, which
the host starts ahead of them; so that is not counted.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any


class Clock:
    """Speed since the last lap, and the share of it in which devices waited for data."""

    def __init__(self, batch_size: int):
        """Starts the first lap; a step has `batch_size` examples."""
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Starts a lap anew: what was timed since the last one doesn't count."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    @contextlib.contextmanager
    def waiting(self, num_steps: int, before: Any) -> Iterator[None]:
        """Times the block as waiting for the data of so many steps.

        It counts where the devices had nothing to do at its end: `before`, a result of the newest
        step (None: there is none), was there.
        """
        began = time.perf_counter()
        yield
        if before is None or before.is_ready():
            self._waited += time.perf_counter() - began
        self._steps += num_steps

    def lap(self) -> dict[str, float]:
        """Returns the figures to log; none where no step was timed."""
        seconds, steps, waited = time.perf_counter() - self._since, self._steps, self._waited
        self.restart()
        if not steps:
            return {}
        return {
            "images_per_second": steps * self._batch_size / seconds,
            "ms_per_step": 1000.0 * seconds / steps,
            "data_wait_share": waited / seconds,
        }
