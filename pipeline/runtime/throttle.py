"""Limits reports to one in every few seconds."""

import time


class Throttle:
    """Says whether enough seconds have passed since the last report, or since it was made."""

    def __init__(self, seconds: float):
        """Starts the clock."""
        self._seconds, self._last = seconds, time.perf_counter()

    def due(self) -> bool:
        """Says whether the seconds have passed; if so, starts the clock again."""
        now = time.perf_counter()
        if now - self._last <= self._seconds:
            return False
        self._last = now
        return True
