from pipeline.display import plots


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
