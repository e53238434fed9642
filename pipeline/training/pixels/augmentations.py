"""Augmentation of training images, on the device: flips and random resized crops.

An example's own key draws its changes, so they are the same on any mesh. Evaluations see whole
images. Data with factors are refused, because a factor such as a position would no longer be true.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pipeline.nn import networks, streams
from pipeline.runtime import errors


def check(config: Any, example: Any) -> None:
    """Checks that the data can be augmented as the config says.

    Args:
        config: the whole config; reads `data`.
        example: abstract example of the data set.

    Raises:
        InputError: the examples have no images or have factors, or binary pixels would become grey.
    """
    section, name = config.data.augment, f"config.data.name={config.data.name!r}"
    is_cut = section.min_area < 1
    if not is_cut and not section.flip:
        return
    field = f"min_area={section.min_area}" if is_cut else f"flip={section.flip}"
    fault = ""
    if "image" not in example:
        fault = f"{name} has no images: leave it out"
    elif "factors" in example:
        fault = f"{name} has factors, which would not be true of changed images: leave it out"
    elif is_cut and config.data.binarize:
        fault = "interpolation makes grey pixels: set it to 1, or config.data.binarize to False"
    if fault:
        raise errors.InputError(f"config.data.augment.{field}: {fault}")


def augmented(section: Any, batch: dict[str, Array], *, keys: Array) -> dict[str, Array]:
    """Returns the batch with other images; without augmentation it is the same batch.

    Args:
        section: `config.data.augment`.
        batch: `image` [B, H, W, C], uint8 of 0 … 255 or float32 in [0, 1]; other entries stay.
        keys: [B], the examples' keys.
    """
    if not section.flip and section.min_area == 1:
        return batch
    image = batch["image"]
    own = jax.vmap(jax.random.split)(streams.within(keys, streams.AUGMENTATION))
    if section.flip:
        image = flipped(image, keys=own[:, 0])
    if section.min_area < 1:
        boxes = crops(section, keys=own[:, 1])
        image = jax.vmap(resized_crop)(networks.unit_interval(image), boxes)
    return batch | {"image": image}


def flipped(image: Array, *, keys: Array) -> Array:
    """Returns images [B, H, W, C], each mirrored left to right with probability ½."""
    chosen = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(chosen[:, None, None, None], image[:, :, ::-1], image)


def crops(section: Any, *, keys: Array) -> Array:
    """Draws parts of images, as in Inception (Szegedy et al. 2015, arXiv:1409.4842, section 6).

    The area is uniform in [min_area, 1]. The logarithm of the aspect ratio is uniform in
    ±log(max_aspect), as far as the part fits into the image. The place is uniform. Places and sizes
    are no whole pixels.

    Args:
        section: `config.data.augment`.
        keys: [B].

    Returns:
        [B, 4] float32: top, left, height and width, as shares of the image's sides. An aspect ratio
        of 1 is the image's own.
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys)
    area = 1 - (1 - section.min_area) * uniform[:, 0]
    # Height √(area / aspect) and width √(area · aspect) are at most 1.
    most = jnp.minimum(jnp.log(section.max_aspect), -jnp.log(area))
    half = most * (uniform[:, 1] - 0.5)
    height, width = jnp.sqrt(area) * jnp.exp(-half), jnp.sqrt(area) * jnp.exp(half)
    top, left = uniform[:, 2] * (1 - height), uniform[:, 3] * (1 - width)
    return jnp.stack([top, left, height, width], axis=1)


def resized_crop(image: Array, box: Array) -> Array:
    """Returns a part of an image, enlarged to the image's size by bilinear interpolation.

    Args:
        image: [H, W, C] float32.
        box: [4], as `crops` returns it. Samples beyond the centres of outer pixels repeat these.
    """
    sides = jnp.array(image.shape[:2], jnp.float32)
    scale = 1 / box[2:]
    # At scales of 1 or more antialiasing would change nothing.
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), scale, -box[:2] * sides * scale, "linear", antialias=False
    )
