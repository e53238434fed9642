import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.nn import schedules
from pipeline.runtime import errors


def section(schedule, start=1.0, end=5.0, steps=8):
    return ConfigDict({"schedule": schedule, "start": start, "end": end, "steps": steps})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", [5, 5, 5, 5, 5]),
        ("linear", [1, 2, 3, 5, 5]),
        ("cosine", [1, 3 - 4 * np.cos(np.pi / 4) / 2, 3, 5, 5]),
        ("cyclical", [1, 3, 5, 1, 1]),
    ],
)
def test_schedules_have_the_values_computed_by_hand(shape, expected):
    schedule = schedules.make(section(shape), field="model.beta")
    actual = [float(schedule(step)) for step in (0, 2, 4, 8, 16)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(("value", "words"), [(None, "=None must be a number"), (-1, "finite")])
def test_what_is_no_schedule_and_no_number_is_refused(value, words):
    with pytest.raises(errors.InputError, match=words):
        schedules.make(value, field="model.beta")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": "quadratic"}, "model.beta.schedule='quadratic' is unknown: choose one of"),
        ({"steps": 0}, "model.beta.steps=0 must be at least 1"),
        ({"end": -1.0}, "model.beta.end=-1.0 must be finite and not negative"),
        ({"start": float("nan")}, "model.beta.start=nan"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(change, words):
    config = section("linear")
    config.update(change)
    with pytest.raises(errors.InputError, match=words):
        schedules.make(config, field="model.beta")
