"""Which figures of image quality a config and the shape of its images allow, and why not others.

A figure that the images are too small for, or whose weights are missing, is left out by name. It is
never replaced by a similar one.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pipeline.evals.quality import similarity
from pipeline.nn import inception, perceptual
from pipeline.runtime import errors, registry
from pipeline.runtime.storage import places

# AlexNet's features are those of its last layer for images of this size, as FID has 299 × 299.
ALEX_SIDE = 128
FRECHET = {"frechet_alexnet": "frechet_alexnet_reconstructions", "fid": "rfid"}


class Chosen(NamedTuple):
    """The figures by name: what computes them, with weights that every device holds."""

    pairs: dict[str, Callable[..., Array]]  # (weights, images, reconstructions) → [B]
    features: dict[str, Callable[..., Array]]  # (weights, images) → [B, F]
    weights: dict[str, Callable[[], Any]]  # reads those of a figure, () if it needs none
    left_out: dict[str, str]  # why, by name


def choose(section: Any, shape: tuple[int, ...]) -> Chosen:
    """Returns the figures of images [H, W, C].

    Args:
        section: `config.image_quality`.
        shape: of an image.

    Raises:
        InputError: an unknown network, or a file of weights that cannot be read.
    """
    for name in section.lpips:
        registry.check(name, perceptual.NETWORKS, field="image_quality.lpips")
    pairs: dict[str, Callable] = {
        name: _without_weights(getattr(similarity, name)) for name in ("mae", "mse", "psnr")
    }
    features: dict[str, Callable] = {}
    weights: dict[str, Callable[[], Any]] = dict.fromkeys(pairs, tuple)
    left_out = dict(_unfit(section, shape))
    for name, side in (("ssim", similarity.WINDOW), ("ms_ssim", similarity.SMALLEST)):
        if min(shape[:2]) >= side:
            pairs[name], weights[name] = _without_weights(getattr(similarity, name)), tuple
    for network in section.lpips:
        name = f"lpips_{network}"
        if name not in left_out:
            pairs[name] = functools.partial(perceptual.distances, network=network)
            weights[name] = functools.partial(perceptual.load, network)
    if section.frechet and "frechet_alexnet" not in left_out:
        features["frechet_alexnet"] = alexnet_features
        weights["frechet_alexnet"] = functools.partial(perceptual.load, "alex")
    if section.inception:
        # A mistake in the name counts even if the images allow no FID.
        read = _inception(section.inception)
        if "fid" not in left_out:
            features["fid"], weights["fid"] = inception.features, lambda: read
    return Chosen(pairs, features, weights, left_out)


def alexnet_features(weights: perceptual.Weights, images: Array) -> Array:
    """Returns the means over positions of AlexNet's last layer, [B, 256] float32.

    Args:
        weights: of `perceptual.load("alex")`.
        images: [B, H, W, 1 or 3] in [0, 1]; they are resized to 128 × 128 bilinearly, with
            antialiasing if they are larger.
    """
    size = (len(images), ALEX_SIDE, ALEX_SIDE, images.shape[-1])
    images = jnp.clip(jax.image.resize(images, size, "bilinear"), 0.0, 1.0)
    return perceptual.features(weights, images, network="alex")[-1].mean(axis=(1, 2))


def _unfit(section: Any, shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Yields the figures that the images or this installation do not allow, each with the reason.

    Figures that the config does not ask for are not named, but FID is: it needs a file.
    """
    height, width, channels = shape
    short, size = min(height, width), f"the images have {height} × {width}"
    for name, side in (("ssim", similarity.WINDOW), ("ms_ssim", similarity.SMALLEST)):
        if short < side:
            yield name, f"it needs {side} pixels a side, and {size}"
    networks = {f"lpips_{name}": name for name in section.lpips}
    names = [*networks, *(["frechet_alexnet"] if section.frechet else []), "fid"]
    for name in names:
        if channels not in (1, 3):
            yield name, f"it needs images of 1 or 3 channels, not {channels}"
        elif short == 1:
            yield name, f"it needs images, and these are signals: {size}"
        elif name == "fid" and not section.inception:
            yield name, "it needs Inception's weights: --config.image_quality.inception=FILE"
        elif name != "fid" and not perceptual.is_installed():
            yield name, f"its weights are not installed: {perceptual.INSTALL}"
        elif name in networks:
            try:
                perceptual.check(shape, networks[name])
            except errors.InputError as error:
                yield name, str(error)


def _inception(name: str) -> inception.Weights:
    field = "config.image_quality.inception"
    path = places.of(name, name=field)
    try:
        return inception.load(path)
    except errors.InputError as error:
        raise errors.InputError(f"{field}: {error}") from None


def _without_weights(measure: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda weights, images, reconstructions: measure(images, reconstructions)
