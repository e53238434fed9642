"""Images of sets with other ranges, and labels of several conditions, as Python gives them."""

import jax
import numpy as np
import pytest

from pipeline import datasets
from pipeline.outputs import given_arrays, given_labels
from pipeline.runtime import errors
from pipeline.training import examples

DEEP = datasets.Pixels((2, 2, 1), np.uint16, 0, 4095)
BITS = datasets.Pixels((2, 2, 1), np.uint8, 0, 1)
SIGNED = datasets.Pixels((2, 2, 1), np.float32, -1.0, 1.0)
CONDITIONS = {
    "pose": jax.ShapeDtypeStruct((2,), np.float32),
    "label": datasets.label(3, ("cat", "dog", "cow")),
    "size": jax.ShapeDtypeStruct((), np.float32),
}


def images(values, pixels, dtype):
    given = np.resize(np.array(values, dtype), (1, *pixels.shape))
    return given_arrays.images(given, pixels, binarize=False)


@pytest.mark.parametrize(
    ("pixels", "values", "dtype"),
    [
        (DEEP, [0, 4095], np.uint16),
        (DEEP, [0, 255], np.uint8),
        (DEEP, [0.0, 1.0], np.float64),
        (BITS, [0, 1], np.uint8),
        (BITS, [0.0, 1.0], np.float16),
        (SIGNED, [0.0, 1.0], np.float32),
        (SIGNED, [0, 255], np.uint8),
    ],
)
def test_the_least_and_the_largest_value_become_0_and_1(pixels, values, dtype):
    found = images(values, pixels, dtype)
    if found.dtype.kind == "u":  # what a model does with whole numbers
        own = found.dtype == pixels.dtype
        found = examples.scaled({"image": found}, {"image": pixels})["image"] if own else found
        found = found / 255 if found.dtype == np.uint8 else found
    np.testing.assert_array_equal(np.unique(found), [0.0, 1.0])


@pytest.mark.parametrize(
    ("pixels", "values", "dtype", "words"),
    [
        (
            DEEP,
            [4096],
            np.uint16,
            "=4096 must lie between 0 and 4095: that is the range of the run",
        ),
        (DEEP, [1], np.int32, "int32: convert them to uint8 of 0 … 255, uint16 of 0 … 4095 or fl"),
        (BITS, [2], np.uint8, "=2 must lie between 0 and 1: that is the range of the run's data"),
        (SIGNED, [-0.5], np.float32, "=-0.5 must lie between 0 and 1: scale them, as model.pixels"),
    ],
)
def test_a_value_of_no_range_is_refused(pixels, values, dtype, words):
    with pytest.raises(errors.InputError) as raised:
        images(values, pixels, dtype)
    assert words in str(raised.value)


def test_the_pixels_of_a_set_scale_its_floats_for_a_model():
    own = np.array([-1.0, 0.0, 1.0, 0.5], np.float32).reshape(1, 2, 2, 1)
    found = given_arrays.images(SIGNED.unit(own), SIGNED, binarize=False)
    np.testing.assert_array_equal(found.ravel(), [0.0, 0.5, 1.0, 0.75])


def test_several_conditions_are_given_by_name():
    given = {"pose": [[1, 2], [3, 4]], "label": ["cow", "cat"], "size": 0.5}
    found = given_labels.entries(given, CONDITIONS, 2)
    np.testing.assert_array_equal(found["pose"], np.float32([[1, 2], [3, 4]]))
    np.testing.assert_array_equal(found["label"], [2, 0])
    np.testing.assert_array_equal(found["size"], np.float32([0.5, 0.5]))
    assert {name: array.dtype for name, array in found.items()} == {
        name: np.dtype(entry.dtype) for name, entry in CONDITIONS.items()
    }
    assert given_labels.entries(None, CONDITIONS, 2) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2], "has the conditions pose, label, size: give a dictionary with an entry for each"),
        ({"label": 1}, "labels of label: the run's model has the conditions pose, label, size"),
        ({"pose": [0, np.nan], "label": 1, "size": 1}, "labels of pose"),
        ({"pose": [0, 1], "label": "calf", "size": 1}, "'calf' is no class of label: "),
        ({"pose": [0, 1], "label": "3", "size": 1}, "'3' is no class of label: "),
        ({"pose": [0, 1], "label": 3, "size": 1}, "3 is no class of label: There are 3 classes: c"),
        ({"pose": [0, 1], "label": 1, "size": "big"}, "labels of size"),
    ],
)
def test_labels_that_do_not_fit_are_refused(given, words):
    with pytest.raises(errors.InputError) as raised:
        given_labels.entries(given, CONDITIONS, 2)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
