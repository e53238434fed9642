import html

import pytest

from pipeline.display import chart_range, plots


def test_a_chart_takes_the_colour_of_the_page_and_keeps_its_last_point():
    points = [(step, 1.0 / (step + 1)) for step in range(2501)]
    text = plots.lines({"train/loss": points, "heldout/loss": points[::500]}, title="t")
    assert text.startswith("<svg")
    assert "currentColor" in text
    assert plots.INK not in text
    assert "train/loss" in text
    assert plots.thinned(points)[-1] == points[-1]
    assert len(plots.thinned(points)) <= plots.MAX_POINTS
    assert plots.lines({"a": points}, title="t") == plots.lines({"a": points}, title="t")


def test_first_points_that_would_flatten_the_rest_are_cut_off_and_named():
    points = [(1, 5000.0), *((step, 100.0 - step / 10) for step in range(2, 201))]
    found = chart_range.window({"train/loss": points})
    assert 70 < found.low < 80 and 100 > found.high > 97
    text = plots.lines({"train/loss": points}, title="loss")
    assert "step; the first values reach 5000" in text
    rising = {"train/elbo": [(step, -value) for step, value in points]}
    assert "step; the first values reach -5000" in plots.lines(rising, title="elbo")


def test_a_curve_that_falls_all_the_way_is_shown_whole():
    points = [(step, 100.0 - step) for step in range(100)]
    assert chart_range.window({"train/loss": points}) is None
    assert chart_range.window({"train/loss": [(1, float("nan"))]}) is None
    assert chart_range.window({"train/beta": [(1, 0.0), (2, 4.0), (3, 4.0), (4, 4.0)]}) is None


@pytest.mark.parametrize("name", ["$x", "_hidden", "<b>&", "\x1b[0m", "日本"])
def test_a_name_in_a_legend_is_text(name):
    text = plots.lines({name: [(1, 1.0), (2, 2.0)]}, title=name)
    assert html.escape(name, quote=False) in text
    assert text.startswith('<svg role="img" aria-label="')
