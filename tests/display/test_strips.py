import re

import pytest

from pipeline.display import plots, strips


def test_a_strip_chart_shows_every_value_and_the_name_of_every_group():
    groups = {"one": [1.0, 2.0, 4.0], "$two_": [3.0], "none": []}
    text = strips.strips(groups, title="MIG", unit="nats")
    assert text.startswith("<svg") and plots.INK not in text
    for name in (*groups, "MIG", "nats"):
        assert f">{name}</text>" in text
    assert 'aria-label="MIG: the values of one, $two_, none"' in text


def test_every_value_is_a_point():
    two, three = (strips.strips({"a": v}, title="t") for v in ([1.0, 2.0], [1.0, 1.25, 2.0]))
    assert three.count("<use") == two.count("<use") + 1


def test_more_groups_make_a_higher_chart():
    heights = [
        float(re.search(r'height="([\d.]+)pt"', strips.strips(groups, title="t"))[1])
        for groups in ({"a": [1.0]}, {"a": [1.0], "b": [2.0]})
    ]
    assert heights[1] - heights[0] == pytest.approx(72 * strips.ROW)
