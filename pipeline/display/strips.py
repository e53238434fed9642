"""Strip charts: all values of a few groups as points, over the box of their quartiles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.display import plots

ROW, MARGIN = 0.32, 0.95  # inches of a group, and of the title and the axis
HALF_BOX = 0.26  # half the height of a box, in rows


def strips(groups: Mapping[str, Sequence[float]], *, title: str, unit: str = "") -> str:
    """Returns an SVG chart with a row for each group: points, quartiles and median.

    Args:
        groups: finite values by the group's name; a group may be empty.
        title: above the chart.
        unit: below the horizontal axis.
    """

    def draw(axes: Any) -> None:
        for row, values in enumerate(groups.values()):
            if not len(values):
                continue
            lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
            bottom, top = row - HALF_BOX, row + HALF_BOX
            axes.fill_between(
                [lower, upper], bottom, top, color=plots.COLOURS[0], alpha=0.2, linewidth=0
            )
            axes.plot([median, median], [bottom, top], color=plots.COLOURS[1], linewidth=2)
            # Points lie over boxes. Equal values are as dark as several points.
            axes.plot(
                values, [row] * len(values), "o", color=plots.COLOURS[0], markersize=5, alpha=0.8,
                markeredgewidth=0,
            )  # fmt: skip
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)  # the first group comes first
        axes.set_xlabel(unit)
        axes.margins(x=0.05)
        axes.locator_params(axis="x", nbins=5)  # more long numbers would touch

    height = MARGIN + ROW * len(groups)
    label = f"{title}: the values of {', '.join(groups)}"
    return plots.svg(draw, title, label, size=(plots.SIZE[0], height))
