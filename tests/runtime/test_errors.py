"""The error lines about numbers that are out of range."""

import pytest

from pipeline.runtime import errors


@pytest.mark.parametrize("value", [1, 2, 1.0])
def test_a_number_in_its_range_passes(value):
    errors.check_range("config.a", value, 1)
    errors.check_range("config.a", value, 1, 2)
    errors.check_not_negative("config.a", 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0, 1), "config.a=0 must be at least 1"),
        ((float("nan"), 1), "config.a=nan must be at least 1"),
        ((3, 1, 2), "config.a=3 must lie between 1 and 2"),
        ((float("nan"), 1, 2), "config.a=nan must lie between 1 and 2"),
    ],
)
def test_a_number_out_of_its_range_is_told_with_the_range(arguments, line):
    with pytest.raises(errors.InputError) as raised:
        errors.check_range("config.a", *arguments)
    assert str(raised.value) == line


def test_a_hint_ends_the_line():
    with pytest.raises(errors.InputError, match=r"^a=-1 must not be negative; 0 is off$"):
        errors.check_not_negative("a", -1, hint="; 0 is off")
