"""Plots with axes, drawn by matplotlib without a display and without its global state."""

from typing import Any

import numpy as np

DOTS_PER_INCH = 100


def figure(width: float, height: float, *, title: str) -> Any:
    """Returns an empty matplotlib figure.

    Args:
        width: inches of 100 pixels.
        height: likewise.
        title: above all axes.
    """
    from matplotlib.figure import Figure  # slow to import: no start needs it that draws no plot

    made = Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")
    made.suptitle(title)
    return made


def pixels(drawn: Any) -> np.ndarray:
    """Returns the figure as [H, W, 3] uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
