"""PNG, JPEG and WebP files in a folder or zip: `[train/ | val/ or test/][<class>/]<name>`.

The images are decoded once, to `data.image_size`, into the user's cache. Sub-folders are the
classes; without sub-folders there is no label. Beside `train/`, the first existing folder of
`heldout/`, `val/` and `test/` is the held-out split. Without such folders the seed chooses
`data.heldout_examples` images.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import _image_decoder, _image_layout, _image_pack
from pipeline.runtime import errors


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example; lists the folder to count classes, and decodes nothing.

    Raises:
        InputError: there is no such folder, its layout is another one, or a size is impossible.
    """
    to, classes = _format(config), layout(config.path).classes
    image = jax.ShapeDtypeStruct((to.side, to.side, to.channels), np.uint8)
    return {"image": image} | ({"label": datasets.label(len(classes))} if classes else {})


def load(config: Any) -> dict[str, _image_pack.Pictures]:
    """Opens the splits of the folder or zip, in the order of `_image_layout.read`.

    Raises:
        InputError: as in `spec`; or more than `data.max_corrupt_files` files are corrupt.
        OSError: the packed copy cannot be written.
    """
    return _image_pack.pictures(
        _path(config.path),
        layout(config.path),
        _format(config),
        max_corrupt=config.max_corrupt_files,
    )


@functools.lru_cache(maxsize=1)
def layout(given: str) -> _image_layout.Layout:
    """Lists the folder, once per process: `spec` and `load` must find the same classes."""
    return _image_layout.read(_path(given))


def _path(given: str) -> Path:
    if not given:
        raise errors.InputError(
            "config.data.path is empty: give the folder or zip of images, --config.data.path=FOLDER"
        )
    return Path(given).expanduser()


def _format(config: Any) -> _image_decoder.Format:
    if config.channels not in (1, 3):
        raise errors.InputError(f"config.data.channels={config.channels} must be 1 or 3")
    errors.check_range("config.data.image_size", config.image_size, 1)
    short_side = config.resize or config.image_size
    if short_side < config.image_size:
        raise errors.InputError(
            f"config.data.resize={config.resize} is less than config.data.image_size="
            f"{config.image_size}, which is cut out of it: raise it, or use 0 for the same size"
        )
    return _image_decoder.Format(config.image_size, short_side, config.channels)
