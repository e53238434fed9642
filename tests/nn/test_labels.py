import jax
import numpy as np
import pytest

from pipeline import datasets
from pipeline.nn import labels
from pipeline.runtime import errors

ANIMALS = {"label": datasets.label(4, ("bird", "cat", "Dog", "cat, big"))}
DIGITS = {"label": datasets.label(10, tuple("0123456789"))}
COUNTED = {"label": datasets.label(10, tuple(str(n) for n in range(1, 11)))}
SPRITES = {
    "factors": datasets.factors((3, 4), ("shape", "x"), {"shape": ("square", "ellipse", "heart")})
}


def refusal(text, conditions):
    with pytest.raises(errors.InputError) as raised:
        labels.parse(text, conditions)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "conditions", "values"),
    [
        ("cat", ANIMALS, [1]),
        ("cat,bird, Dog", ANIMALS, [1, 0, 2]),
        ("cat;bird", ANIMALS, [1, 0]),
        ("1,cat", ANIMALS, [1, 1]),
        ('"cat, big",cat', ANIMALS, [3, 1]),
        ("all", ANIMALS, [0, 1, 2, 3]),
        ("3,1,7", DIGITS, [3, 1, 7]),
        ("all", DIGITS, list(range(10))),
        ("1,10,2", COUNTED, [0, 9, 1]),  # names, because the names are numbers
        ("heart,0;1,3", SPRITES, [[2, 0], [1, 3]]),
    ],
)
def test_a_class_is_given_by_its_name_or_number(text, conditions, values):
    rows = labels.parse(text, conditions)
    np.testing.assert_array_equal(rows.values, values)
    (entry,) = rows.entries.values()
    np.testing.assert_array_equal(entry, values)
    assert entry.dtype == np.int32


@pytest.mark.parametrize(
    ("text", "conditions", "texts"),
    [
        ("1,3", ANIMALS, ("cat", "cat, big")),
        ("all", COUNTED, tuple(str(n) for n in range(1, 11))),
        ("1,2;square,0", SPRITES, ("ellipse,2", "square,0")),
    ],
)
def test_rows_are_named_by_classes(text, conditions, texts):
    rows = labels.parse(text, conditions)
    assert rows.texts == rows.names == texts


def test_a_name_that_a_picture_cannot_show_is_short_or_a_number():
    named = ("\u732b", "caf\xe9", "x" * 60, "")
    rows = labels.parse("all", {"label": datasets.label(4, named)})
    assert rows.texts == ("0", "caf\xe9", "x" * 22 + "..", "3")
    assert rows.names == named


@pytest.mark.parametrize(
    ("text", "conditions", "words"),
    [
        ("Cat", ANIMALS, "'Cat' is no class of label: did you mean cat? There"),
        ("brid", ANIMALS, "did you mean bird? There are 4 classes: bird, cat, Dog, "),
        ("cat big", ANIMALS, 'did you mean "cat, big" or cat?'),
        ("4", ANIMALS, "'4' is no class of label: There are 4 classes"),
        ("-1", ANIMALS, "'-1' is no class of label"),
        ("0", COUNTED, "'0' is no class of label: "),  # not the class 1, whose index is 0
        ("11", COUNTED, "'11' is no class of label: did you mean 1? There are 10"),
        ("10", DIGITS, "'10' is no class of label: allowed are 0 to 9"),
        ("hart,0", SPRITES, "did you mean heart?"),
        ("heart", SPRITES, "has 1 values, and the run needs 2 columns (factors: 0 to 2"),
        ("all", SPRITES, "--labels=all needs one column of classes"),
        ("x", {"pose": jax.ShapeDtypeStruct((), np.float32)}, "'x' must be a number, of pose"),
    ],
)
def test_an_unknown_name_is_one_line_with_near_ones(text, conditions, words):
    assert words in refusal(text, conditions)


def test_names_of_classes_are_found_by_column():
    assert datasets.class_names({**ANIMALS, **SPRITES}) == {
        "label": ["bird", "cat", "Dog", "cat, big"],
        "shape": ["square", "ellipse", "heart"],
    }
    assert datasets.class_names({"label": datasets.label(3)}) == {}
