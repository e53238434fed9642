"""Something that is worth saying only every few seconds."""

import time


class Throttle:
    """Says when so many seconds have passed, since the last time or since it was made."""

    def __init__(self, seconds: float):
        """Starts to count."""
        self._seconds, self._last = seconds, time.perf_counter()

    def due(self) -> bool:
        """Says whether the seconds have passed; if so, counts from now."""
        now = time.perf_counter()
        if now - self._last <= self._seconds:
            return False
        self._last = now
        return True
