"""CIFAR-10 (Krizhevsky 2009): the published archive or an image tree; without a path, a download.

The training examples keep the order of the published batches. An image tree
`{train,test}/<class>/<n>.png` has lost that order. Its examples are ordered by n and then by class,
so that the first N cover all classes equally.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import (
    _checked_rows,
    _cifar10_files,
    _image_decoder,
    _image_layout,
    _image_pack,
    _paths,
)
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


class Records(NamedTuple):
    """The examples of a split of the published archive."""

    records: _checked_rows.Rows  # [N, 3073] uint8: the class, then the pixels

    def __len__(self) -> int:
        """Returns N."""
        return len(self.records)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, 32, 32, 3] uint8 and `label` [n] int32."""
        found = self.records.read(indices)
        return {"image": found[:, 1:].reshape(-1, 32, 32, 3), "label": found[:, 0].astype(np.int32)}

    def fingerprint(self) -> dict[str, str]:
        """Returns what these examples are, see `datasets.Source`."""
        digest = datasets.digest(self.records.sums.tobytes())
        return {"examples": str(len(self)), "classes": ", ".join(CLASSES), "pixels": digest}


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example."""
    del config
    return {
        "image": jax.ShapeDtypeStruct((32, 32, 3), np.uint8),
        "label": datasets.label(len(CLASSES), CLASSES),
    }


def load(config: Any) -> Mapping[str, datasets.Source]:
    """Opens the published splits at `config.path`, or downloads them if the path is empty.

    Raises:
        InputError: files are missing or damaged, or the download fails.
        OSError: the cache folder cannot be written.
    """
    if not config.path:
        return _load_fetched()
    path = _find(_paths.expanded(config.path))
    if path.suffix == ".zip" or (path / "train").is_dir():
        return _load_tree(path, config.max_corrupt_files)
    return _load_archive(path)


def _load_archive(path: Path) -> dict[str, Records]:
    return {part: Records(records) for part, records in _cifar10_files.load(path).items()}


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
    wanted = (
        f"{ARCHIVE}, its unpacked folder, or a zip or folder of images train/<class>/ and "
        "test/<class>/"
    )
    if _paths.kind(path, wanted) == "file" and path.name.endswith((".zip", ".tar.gz", ".tgz")):
        return path
    if path.is_dir():
        if any((path / name).exists() for name in ("train", "data_batch_1.bin")):
            return path
        if (path / FOLDER).is_dir():
            return path / FOLDER
        if (path / ARCHIVE).is_file():
            return path / ARCHIVE
        if any((path / name).exists() for name in PICKLES):
            raise _cifar10_files.no_pickles(path)
    raise errors.InputError(f"{path} holds no CIFAR-10: --config.data.path must be {wanted}")


def _load_fetched() -> dict[str, Records]:
    """Opens the archive in the cache; downloads it if it is not there, or damaged."""
    path = cache.folder() / ARCHIVE
    if not path.is_file():
        with cache.locked(path):
            if not path.is_file():  # another process may have fetched it
                _fetch(path)
    try:
        return _load_archive(path)
    except errors.InputError:
        if _is_whole(path):
            raise
    with cache.locked(path):
        if not _is_whole(path):
            _fetch(path)
    return _load_archive(path)


def _is_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == MD5


def _fetch(path: Path) -> None:
    terminal.Terminal().note(f"Fetching {ADDRESS} (162 MiB), once, into {path}")
    try:
        download.fetch(path, [ADDRESS], md5=MD5, max_bytes=MAX_BYTES)
    except download.Unfetched as error:
        raise errors.InputError(
            f"config.data.path is empty and {ADDRESS} could not be fetched ({error}): pass "
            f"--config.data.path=FILE, {ARCHIVE} or a copy of it in another form"
        ) from error
