"""Images in a folder or zip: `[train/ | val/ or test/][<class>/]<name>`, of the usual formats.

The images are decoded once, to `data.image_size`, into the user's cache. Sub-folders are the
classes, in natural order; without sub-folders there is no label. Beside `train/`, the first of
`heldout/`, `val/`, `eval/` and `test/` is the held-out split; `_image_parts` has their other names.
Without such folders the seed chooses `data.heldout_examples` images.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import _image_decoder, _image_layout, _image_pack, _paths
from pipeline.display import terminal
from pipeline.runtime import errors

NAMED = 5  # kinds of files that a line names


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example; lists the folder to count classes, and decodes nothing.

    Raises:
        InputError: there is no such folder, its layout is another one, or a size is impossible.
    """
    to, classes = _format(config), layout(config.path).classes
    image = jax.ShapeDtypeStruct(to.shape, np.uint8)
    if not classes:
        return {"image": image}
    names = [_paths.shown(name) for name in classes]
    return {"image": image, "label": datasets.label(len(names), names)}


def load(config: Any) -> dict[str, _image_pack.Pictures]:
    """Opens the splits of the folder or zip, in the order of `_image_layout.read`.

    Raises:
        InputError: as in `spec`; or more than `data.max_corrupt_files` files are corrupt.
        OSError: the packed copy cannot be written.
    """
    path, found = _path(config.path), layout(config.path)
    _say_what_is_not_read(path, found)
    return _image_pack.pictures(path, found, _format(config), max_corrupt=config.max_corrupt_files)


def since_older_versions(config: Any) -> str:
    """Returns why older versions read other examples or labels here, or "" if they did not.

    Runs of these versions have no fingerprint of their data, so only the names can tell.
    """
    found = layout(config.path)
    names = [name for part in found.parts.values() for name in part.names]
    older = (".png", ".jpg", ".jpeg", ".webp")
    if list(found.classes) != sorted(found.classes):
        return (
            f"the {len(found.classes)} classes, such as {found.classes[-1]!r}, are in natural "
            "order, and were in the order of texts"
        )
    if added := [name for name in names if not name.lower().endswith(older)]:
        return f"{len(added)} images such as {added[0]!r} are read, and were not"
    tops = {name.split("/")[0] for name in names} - {"train", "heldout", "val", "test"}
    if len(found.parts) > 1 and tops:
        return f"{min(tops)!r} is a part, and was a class"
    return ""


def _say_what_is_not_read(path: Path, found: _image_layout.Layout) -> None:
    screen, shown = terminal.Terminal(active=jax.process_index() == 0), _paths.shown(path)
    for part, num in found.unused.items():
        screen.note(
            f"{shown}: the {num:,} images in {part} are not read, as another part is held out"
        )
    if found.unread:
        kinds: dict[str, list[str]] = {}
        for name in found.unread:
            kinds.setdefault(_image_layout.suffix(name), []).append(name)
        most = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        listed = [f"{len(names):,} {kind} ({min(names)!r})" for kind, names in most[:NAMED]]
        rest = " …" if len(most) > NAMED else ""
        screen.note(f"{shown}: {len(found.unread):,} files are not read: {', '.join(listed)}{rest}")


@functools.lru_cache(maxsize=1)
def layout(given: str) -> _image_layout.Layout:
    """Lists the folder, once per process: `spec` and `load` must find the same classes."""
    return _image_layout.read(_path(given))


def _path(given: str) -> Path:
    if not given:
        raise errors.InputError(
            "config.data.path is empty: give the folder or zip of images, --config.data.path=FOLDER"
        )
    return _paths.expanded(given)


def _format(config: Any) -> _image_decoder.Format:
    if config.channels not in (1, 3):
        raise errors.InputError(f"config.data.channels={config.channels} must be 1 or 3")
    size = config.image_size
    if isinstance(size, tuple) and size[0] != size[1]:
        if config.resize:
            raise errors.InputError(
                f"config.data.resize={config.resize} needs one number as config.data.image_size, "
                f"not {size}: use 0, which scales each image until it covers them"
            )
        return _image_decoder.Format(size, min(size), config.channels)
    side = size[0] if isinstance(size, tuple) else size  # equal sides share their packed copy
    errors.check_range("config.data.image_size", side, 1)
    short_side = config.resize or side
    if short_side < side:
        raise errors.InputError(
            f"config.data.resize={config.resize} is less than config.data.image_size="
            f"{side}, which is cut out of it: raise it, or use 0 for the same size"
        )
    return _image_decoder.Format(side, short_side, config.channels)
