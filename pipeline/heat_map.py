"""A table of numbers as a picture: each cell coloured by its value, which stands in it."""

from collections.abc import Sequence

import numpy as np

from pipeline import plots


def draw(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    unit: str,
) -> np.ndarray:
    """Draws without a display, and leaves matplotlib's global state alone.

    Args:
        values: [R, C], finite and not negative.
        rows: R names.
        columns: C names, of two lines at most.
        title: above it.
        unit: of the values, beside the colours.

    Returns:
        [H, W, 3] uint8.
    """
    size = (2.6 + 1.05 * len(columns), 1.6 + 0.34 * len(rows))
    figure = plots.figure(*size, title=title)
    axes = figure.add_subplot()
    top = max(float(values.max()), 1e-6)
    image = axes.imshow(values, cmap="viridis", vmin=0.0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        colour = "black" if value > 0.6 * top else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, size=9)
    figure.colorbar(image, label=unit)
    return plots.pixels(figure)
