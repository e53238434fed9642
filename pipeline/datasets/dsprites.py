"""dSprites (Matthey et al. 2017): the published file, read through a bit-packed copy.

A compressed member of a zip file cannot be memory-mapped, and unpacked the images take 3 GB. So
they are packed once, eight pixels per byte, into a file of 377 MB in the user's cache folder. Every
later run, and every process of a host, maps that file.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import datasets
from pipeline.datasets import _checked_rows, _dsprites_file, _paths, sprites
from pipeline.runtime import cache, errors

FILE_NAME = _dsprites_file.FILE_NAME
FACTOR_NAMES = sprites.FACTOR_NAMES
SIDE = sprites.SIDE
PACKED_BYTES = SIDE * SIDE // 8  # per image


class DSprites(NamedTuple):
    """The images of the published file, packed, and their factors."""

    packed: _checked_rows.Rows  # [N, 512] uint8, eight pixels per byte, memory-mapped
    classes: np.ndarray  # [N, 6] uint8 class indices, in memory

    def __len__(self) -> int:
        """Returns N; 737,280 for the published file."""
        return len(self.classes)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, 64, 64, 1] uint8 in {0, 255} and `factors` [n, 6] int32."""
        pixels = np.unpackbits(self.packed.read(indices), axis=1)
        pixels *= 255
        return {
            "image": pixels.reshape(-1, SIDE, SIDE, 1),
            "factors": self.classes[indices].astype(np.int32),
        }

    def fingerprint(self) -> dict[str, str]:
        """Returns what these examples are, see `datasets.Source`."""
        return {
            "examples": str(len(self)),
            "labels": datasets.digest(self.classes.tobytes()),
            "pixels": datasets.digest(self.packed.sums.tobytes()),
        }


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example."""
    return sprites.spec(config)


def load(config: Any) -> dict[str, DSprites]:
    """Opens the published file at `config.path`, or in that folder; no splits are published.

    Raises:
        InputError: the path is empty, or the file is missing, damaged or not dSprites.
        OSError: the packed copy cannot be written.
    """
    path = _find(config.path)
    with _dsprites_file.blaming(path), zipfile.ZipFile(path) as archive:
        members = {info.filename: info.CRC for info in archive.infolist()}
        for name in ("imgs.npy", "latents_classes.npy"):
            if name not in members:
                raise errors.InputError(f"{path} has no member {name}: give {FILE_NAME}")
        classes = _dsprites_file.read_classes(archive, path)
    # The key has checksums of the contents, so that a copy is never used for another file.
    key = f"{path.stat().st_size}-{members['imgs.npy']:08x}-{members['latents_classes.npy']:08x}"
    copy = cache.folder() / f"dsprites-{key}.npy"
    shape = (len(classes), PACKED_BYTES)

    def again(rows: np.ndarray) -> np.ndarray:
        return _repacked(path, rows, len(classes))

    packed = _checked_rows.opened(copy, shape, again)
    if packed is None:
        _pack(path, copy, len(classes))
        packed = _checked_rows.opened(copy, shape, again)
    assert packed is not None, copy
    return {"all": DSprites(packed, classes)}


def _find(given: str) -> Path:
    if not given:
        raise errors.InputError(
            f"config.data.path is empty: give the published file, --config.data.path={FILE_NAME}"
        )
    path, wanted = _paths.expanded(given), f"{FILE_NAME}, or the folder that has it"
    if _paths.kind(path, wanted) == "folder":
        path = path / FILE_NAME
        _paths.kind(path, wanted)
    return path


def _pack(path: Path, copy: Path, num_images: int) -> None:
    """Reads the images once, as a stream, and writes them as an npy file [N, 512] uint8."""
    sums = []
    with cache.writing(copy) as file:
        cache.write_header(file, (num_images, PACKED_BYTES))
        for chunk in _dsprites_file.read_images(path, num_images):
            rows = np.packbits(chunk, axis=1)
            sums.append(_checked_rows.checksums(rows))
            file.write(rows.data)
        # Before the copy has its name, because a copy without checksums is ignored.
        _checked_rows.write_sums(copy, np.concatenate(sums))


def _repacked(path: Path, rows: np.ndarray, num_images: int) -> np.ndarray:
    """Returns some rows of the copy, [n, 512] uint8, from the published file."""
    found, first = np.zeros((len(rows), PACKED_BYTES), np.uint8), 0
    for chunk in _dsprites_file.read_images(path, num_images):
        here = (rows >= first) & (rows < first + len(chunk))
        found[here] = np.packbits(chunk[rows[here] - first], axis=1)
        first += len(chunk)
    return found
