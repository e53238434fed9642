"""CIFAR-10 (Krizhevsky 2009): the published archive or an image tree; without a path, a download.

The training examples keep the order of the published batches. An image tree
`{train,test}/<class>/<n>.png` has lost that order. Its examples are ordered by n and then by class,
so that the first N cover all classes equally.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import _cifar10_files, _image_decoder, _image_layout, _image_pack
from pipeline.display import terminal
from pipeline.runtime import cache, download, errors

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
# Names of the other published archive and of its content: pickles, which are not read.
PICKLES = ("data_batch_1", "cifar-10-batches-py", "cifar-10-python.tar.gz")
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # of the archive, from its page
MAX_BYTES = 2**28  # the most that is read of the server's answer; the archive has 162 MiB


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example."""
    del config
    return {
        "image": jax.ShapeDtypeStruct((32, 32, 3), np.uint8),
        "label": datasets.label(len(CLASSES)),
    }


def load(config: Any) -> dict[str, _image_pack.Pictures]:
    """Opens the published splits at `config.path`, or downloads them if the path is empty.

    Raises:
        InputError: files are missing or damaged, or the download fails.
        OSError: the cache folder cannot be written.
    """
    path = _find(Path(config.path).expanduser()) if config.path else _fetched()
    if path.suffix == ".zip" or (path / "train").is_dir():
        return _load_tree(path, config.max_corrupt_files)
    parts = {}
    for part, records in _cifar10_files.load(path).items():
        pixels = records[:, 1:].reshape(-1, 32, 32, 3)  # a view: nothing is read
        label = records[:, 0].astype(np.int32)
        parts[part] = _image_pack.Pictures(pixels, np.arange(len(label)), label)
    return parts


def _load_tree(path: Path, max_corrupt: int) -> dict[str, _image_pack.Pictures]:
    layout = _image_layout.read(path)
    if layout.classes != CLASSES or "heldout" not in layout.parts:
        raise errors.InputError(
            f"{path} is no CIFAR-10, which has train/ and test/ with the sub-folders "
            f"{', '.join(CLASSES)}: give it, or use --config.data.name=image_folder"
        )
    to = _image_decoder.Format(side=32, short_side=0, channels=3)
    return _image_pack.pictures(path, layout, to, max_corrupt=max_corrupt)


def _find(path: Path) -> Path:
    """Returns the archive, folder of batches or image tree that is at `path`, or in that folder."""
    if path.is_file() and path.name.endswith((".zip", ".tar.gz", ".tgz")):
        return path
    if path.is_dir():
        if any((path / name).exists() for name in ("train", "data_batch_1.bin")):
            return path
        for name in (FOLDER, ARCHIVE):
            if (path / name).exists():
                return path / name
        if any((path / name).exists() for name in PICKLES):
            raise _cifar10_files.no_pickles(path)
    raise errors.InputError(
        f"{path} {'holds no' if path.exists() else 'is missing: there should be'} CIFAR-10: "
        f"--config.data.path must be {ARCHIVE}, its unpacked folder, or a zip or folder of images "
        "train/<class>/ and test/<class>/"
    )


def _fetched() -> Path:
    """Returns the archive in the cache; downloads it if it is not there."""
    path = cache.folder() / ARCHIVE
    if not path.is_file():
        with cache.locked(path):
            if not path.is_file():  # another process may have fetched it
                _fetch(path)
    return path


def _fetch(path: Path) -> None:
    terminal.Terminal().note(f"Fetching {ADDRESS} (162 MiB), once, into {path}")
    try:
        download.fetch(path, [ADDRESS], md5=MD5, max_bytes=MAX_BYTES)
    except download.Unfetched as error:
        raise errors.InputError(
            f"config.data.path is empty and {ADDRESS} could not be fetched ({error}): pass "
            f"--config.data.path=FILE, {ARCHIVE} or a copy of it in another form"
        ) from error
