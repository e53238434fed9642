"""The speed of training, as it is logged."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Speed since the last lap, and the share of it spent waiting for data."""

    def __init__(self, batch_size: int):
        """Starts the first lap; a step has `batch_size` examples."""
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Starts a lap anew: what was timed since the last one doesn't count."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    @contextlib.contextmanager
    def waiting(self, num_steps: int) -> Iterator[None]:
        """Times the block as waiting for the data of so many steps."""
        began = time.perf_counter()
        yield
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
