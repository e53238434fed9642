"""The features of FID's Inception are those of pytorch-fid with the same, random weights."""

import importlib.util
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from pipeline.nn import inception
from pipeline.runtime import errors
from tests.support import torch_references

TORCH = all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "pytorch_fid"))


@pytest.fixture(scope="module")
def kept():
    with np.load(torch_references.FILE) as found:
        return dict(found)


@pytest.fixture(scope="module")
def arrays(kept):
    return torch_references.random_weights(json.loads(str(kept["shapes"])))


@pytest.mark.parametrize("shape", torch_references.INCEPTION, ids=str)
def test_features_are_those_of_pytorch_fid(kept, arrays, shape):
    weights = inception.folded(arrays, source="these")
    images = torch_references.pair(shape)[0]
    found = np.asarray(jax.jit(inception.features)(weights, images))
    expected = kept[torch_references.named("inception", shape)]
    assert found.shape == (2, inception.NUM_FEATURES) and expected.std() > 1
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std())


@pytest.mark.skipif(not TORCH, reason="torch and pytorch-fid are not installed: kept values are")
@pytest.mark.filterwarnings("ignore")
def test_the_kept_features_are_those_of_the_installed_torch(kept):
    features, shapes = torch_references.inception()
    assert {name: list(shape) for name, shape in shapes.items()} == json.loads(str(kept["shapes"]))
    for shape in torch_references.INCEPTION:
        expected = kept[torch_references.named("inception", shape)]
        found = features(torch_references.pair(shape)[0])
        np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std())


def test_the_layers_are_all_that_the_network_of_pytorch_fid_has(kept):
    names = {name.rsplit(".", 2)[0] for name in json.loads(str(kept["shapes"]))}
    assert set(inception.layers()) == names and len(inception.layers()) == len(names) == 94


def test_a_file_of_weights_is_read_and_further_arrays_have_no_effect(tmp_path, arrays):
    file = tmp_path / "inception.safetensors"
    further = {"fc.weight": np.zeros((1008, 2048), np.float32)}
    safetensors.numpy.save_file(arrays | further, file)
    found, expected = inception.load(file), inception.folded(arrays, source="these")
    assert found.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: found.pop("Mixed_7c.branch_pool.bn.bias"), "layer Mixed_7c.branch_pool"),
        (
            lambda found: found.update({"Mixed_6a.branch3x3.bn.weight": np.ones(3, "f4")}),
            "layer Mixed_6a.branch3x3",
        ),
        (
            lambda found: found.update({"Conv2d_3b_1x1.conv.weight": np.ones((80, 3, 1, 1), "f4")}),
            "shapes do not fit",
        ),
        (
            lambda found: found.update({"Conv2d_3b_1x1.conv.weight": np.ones((80, 64), "f4")}),
            "shapes do not fit",
        ),
    ],
)
def test_a_file_of_another_network_is_one_line(tmp_path, arrays, change, says):
    file, changed = tmp_path / "other.safetensors", dict(arrays)
    change(changed)
    safetensors.numpy.save_file(changed, file)
    with pytest.raises(errors.InputError, match=says) as raised:
        inception.load(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_no_safetensors_is_one_line(tmp_path):
    with pytest.raises(errors.InputError, match="is missing"):
        inception.load(tmp_path / "missing.safetensors")
    (tmp_path / "torch.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(errors.InputError, match="cannot be read as safetensors"):
        inception.load(tmp_path / "torch.pth")
