import numpy as np
import pytest

from pipeline.nn import weights
from pipeline.runtime import errors

TREE = {
    "params": {"layers": [{"kernel": np.eye(3, dtype=np.float32)}, np.arange(2)]},
    "n": np.int32(4),
}


def test_names_are_paths_and_a_file_has_the_same_bits(tmp_path):
    arrays = weights.named(TREE)
    assert list(arrays) == ["n", "params.layers.0.kernel", "params.layers.1"]
    weights.write(tmp_path / "a.safetensors", arrays, {"step": 3})
    read, about = weights.read(tmp_path / "a.safetensors")
    assert about == {"step": 3}
    again = weights.like(TREE, read, source="a")
    np.testing.assert_array_equal(again["params"]["layers"][0]["kernel"], np.eye(3))
    assert again["n"] == 4 and again["params"]["layers"][1].dtype == np.int64


def test_equal_arrays_and_descriptions_are_equal_bytes():
    one = weights.encoded({"b": np.ones(2), "a": np.zeros(3).T}, {"y": 1, "x": [2]})
    assert one == weights.encoded({"a": np.zeros(3), "b": np.ones(2)}, {"x": [2], "y": 1})


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "a has no array 'n': int32 [] is needed"),
        ({"n": np.zeros(2, np.int32)}, "as int32 [2]"),
        ({"n": np.float32(1)}, "another model"),
    ],
)
def test_arrays_of_another_model_are_refused(arrays, says):
    with pytest.raises(errors.InputError) as caught:
        weights.like({"n": np.int32(0)}, arrays, source="a")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 40, b"\x02" + b"\0" * 7 + b"{}x", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_a_damaged_file_is_one_line(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match="cannot be read as safetensors"):
        weights.read(path)
    with pytest.raises(errors.InputError, match="is missing"):
        weights.read(tmp_path / "b.safetensors")
