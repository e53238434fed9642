"""Held-out data that says what is read of it, so that a display shows the progress."""

from collections.abc import Callable

import numpy as np

from pipeline import datasets


class Watched:
    """Held-out data that reports how many of its examples were read."""

    def __init__(self, source: datasets.Source):
        """Wraps `source`; each read calls `heard` with the number of examples."""
        self._source = source
        self.heard: Callable[[int], None] = lambda number: None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads from the source."""
        self.heard(len(indices))
        return self._source.read(indices)
