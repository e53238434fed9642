"""Plots: charts as SVG for web pages, and figures with axes as pixels, both by matplotlib.

An SVG chart takes its text colour from the page that shows it, so it fits light and dark pages.
matplotlib is imported when the first plot is drawn, so a training start doesn't wait for it.
"""

import html
import io
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.display import chart_range

DOTS_PER_INCH = 100  # of figures that become pixels
SIZE = (4.4, 2.5)  # inches of an SVG chart
INK = "#010203"  # stands for the page's text colour while matplotlib draws
# Distinct on white and on black.
COLOURS = ("#3b82c4", "#e8792b", "#2f9e6e", "#b65fb8", "#a08a1c", "#d6506a", "#1fa0b5", "#8c8c8c")
MAX_POINTS = 1000  # of a line; a screen shows no more


def lines(
    series: chart_range.Series, *, title: str, unit: str = "", colours: Sequence[str] = ()
) -> str:
    """Returns an SVG chart of (step, value) pairs; held-out lines of few points have markers.

    If the first steps would flatten all others, the chart cuts them off and says so.

    Args:
        series: pairs by their name in the legend. A non-finite value leaves a gap.
        title: above the chart.
        unit: beside the vertical axis.
        colours: of the lines; (): held-out lines have one of their own.
    """
    colours = colours or _colours(series)
    cut = chart_range.window(series)

    def draw(axes: Any) -> None:
        shown = []
        for colour, (name, points) in zip(colours, series.items(), strict=True):
            steps, values = np.transpose(thinned(points))
            values = np.where(np.isfinite(values), values, np.nan)
            few = (len(steps) < 60 and name.startswith("heldout/")) or len(steps) == 1
            shown += axes.plot(
                steps, values, color=colour, linewidth=1.4, marker="o" if few else "", markersize=3
            )
        axes.set_xlabel("step" if cut is None else f"step; the first values {cut.beyond()}")
        axes.set_ylabel(unit)
        axes.margins(x=0.02)
        if cut is not None:
            axes.set_ylim(cut.low, cut.high)
        # Given this way, a name that begins with an underscore is shown too.
        axes.legend(shown, list(series), frameon=False, fontsize=8, labelcolor=INK)

    return svg(draw, title, f"{title}: {', '.join(series)} by step")


def colour(place: int) -> str:
    """Returns the colour of a run by its place, the same in every chart."""
    return COLOURS[place % len(COLOURS)]


def bars(values: np.ndarray, *, title: str, unit: str = "") -> str:
    """Returns an SVG chart of the finite ones of numbers [N], in descending order."""
    values = np.asarray(values, np.float64).ravel()
    ordered = np.sort(values[np.isfinite(values)])[::-1]

    def draw(axes: Any) -> None:
        axes.fill_between(
            np.arange(len(ordered) + 1), np.append(ordered, ordered[-1:]), step="post",
            color=COLOURS[0], alpha=0.85, linewidth=0,
        )  # fmt: skip
        axes.set_xlabel(f"rank, of {values.size:,}")
        axes.set_ylabel(unit)
        axes.margins(x=0.0)

    return svg(draw, title, f"{title}: {values.size:,} values in descending order")


def heat_map(
    values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str, unit: str
) -> np.ndarray:
    """Draws a table as coloured cells with their numbers.

    Args:
        values: [R, C], finite and not negative.
        rows: R names.
        columns: C names, of two lines at most.
        title: above the table.
        unit: of the values, beside the scale of colours.

    Returns:
        [H, W, 3] uint8.
    """
    drawn = figure(2.6 + 1.05 * len(columns), 1.6 + 0.34 * len(rows), title=title)
    axes = drawn.add_subplot()
    # The scale begins at 0, and has some length even if all values are 0.
    top = max(float(values.max()), 1e-6)
    image = axes.imshow(values, cmap="viridis", vmin=0.0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    # The upper colours of viridis are too bright for white digits.
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        colour = "black" if value > 0.6 * top else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, size=9)
    drawn.colorbar(image, label=unit)
    return pixels(drawn)


def figure(width: float, height: float, *, title: str) -> Any:
    """Returns an empty matplotlib figure, independent of matplotlib's global state.

    Args:
        width: inches of 100 pixels.
        height: inches of 100 pixels.
        title: above all axes.
    """
    from matplotlib.figure import Figure

    made = Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")
    made.suptitle(title)
    return made


def pixels(drawn: Any) -> np.ndarray:
    """Returns the figure as [H, W, 3] uint8; it needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Returns every n-th point, at most MAX_POINTS and always the last one."""
    stride = -(-len(points) // MAX_POINTS)
    return points[::-stride][::-1]


def svg(draw: Any, title: str, label: str, size: tuple[float, float] = SIZE) -> str:
    """Returns the SVG element of a chart whose contents `draw(axes)` adds.

    Args:
        draw: adds lines or bars.
        title: above the chart; no mathematics, whatever it contains.
        label: what a screen reader says instead of the chart.
        size: width and height, inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        # The ids in the SVG derive from the title: the file is the same each time, and charts of
        # one page don't share ids.
        "svg.hashsalt": title,
        "text.parse_math": False,  # names of runs may hold dollars
        "font.family": "sans-serif",
        "font.size": 9,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
        ),
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The page's font has the characters that matplotlib's own lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # The frame that all charts share.
        drawn = Figure(figsize=size, layout="constrained")
        axes = drawn.add_subplot()
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        # Without the date, equal charts are equal files.
        file = io.StringIO()
        FigureCanvasSVG(drawn)
        drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    # Only the element: an XML declaration can't stand inside HTML.
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _colours(series: chart_range.Series) -> list[str]:
    """Returns a colour for each series; held-out series have the same one in all charts."""
    held = [name.startswith("heldout/") for name in series]
    others = itertools.cycle([COLOURS[0], *COLOURS[2:]])
    return [COLOURS[1] if one else next(others) for one in held]
