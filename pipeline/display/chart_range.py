"""The vertical range of a chart: that of the run once it has settled."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# The range is that of the points after this share of the steps, if all points would need one this
# many times as high: the first steps would flatten the rest.
SETTLED, FLAT = 0.1, 3.0

Series = Mapping[str, Sequence[tuple[float, float]]]


class Window(NamedTuple):
    """The vertical range of a chart that cuts off its first values, and all values' range."""

    low: float
    high: float
    lowest: float
    highest: float

    def beyond(self) -> str:
        """Says how far the values go that the chart cuts off."""
        ends = []
        if self.highest > self.high:
            ends.append(f"reach {self.highest:.4g}")
        if self.lowest < self.low:
            ends.append(f"{'and ' if ends else 'reach '}{self.lowest:.4g}")
        return " ".join(ends)


def window(series: Series) -> Window | None:
    """Returns the range to show, or None if all values can be shown."""
    points = np.array([point for each in series.values() for point in each], np.float64)
    points = points.reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    steps, values = points.T
    later = values[steps >= steps.min() + SETTLED * (steps.max() - steps.min())]
    whole, settled = np.ptp(values), np.ptp(later)
    if len(later) < 3 or settled == 0 or whole <= FLAT * settled:
        return None
    room = 0.08 * settled
    return Window(later.min() - room, later.max() + room, values.min(), values.max())
