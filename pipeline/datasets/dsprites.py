"""dSprites (Matthey et al. 2017): the published file, read through a bit-packed copy.

A compressed member of a zip file cannot be memory-mapped, and unpacked the images take 3 GB. So
they are packed once, eight pixels per byte, into a file of 377 MB in the user's cache folder. Every
later run, and every process of a host, maps that file.
"""

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from pipeline.datasets import sprites
from pipeline.runtime import cache, errors

FILE_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
FACTOR_NAMES = sprites.FACTOR_NAMES
FACTOR_SIZES = sprites.FACTOR_SIZES
SIDE = sprites.SIDE
PACKED_BYTES = SIDE * SIDE // 8  # per image
CHUNK = 2048  # images unpacked at a time, 8 MiB
# Errors that a damaged file may raise when it is read. zipfile raises RuntimeError for encrypted
# members and unknown compression. NumPy parses headers as Python, and so may raise TokenError.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


class DSprites(NamedTuple):
    """The images of the published file, packed, and their factors."""

    packed: np.ndarray  # [N, 512] uint8, eight pixels per byte, memory-mapped
    classes: np.ndarray  # [N, 6] uint8 class indices, in memory

    def __len__(self) -> int:
        """Returns N; 737,280 for the published file."""
        return len(self.classes)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, 64, 64, 1] uint8 in {0, 255} and `factors` [n, 6] int32."""
        pixels = np.unpackbits(self.packed[indices], axis=1)
        pixels *= 255
        return {
            "image": pixels.reshape(-1, SIDE, SIDE, 1),
            "factors": self.classes[indices].astype(np.int32),
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
    with _blaming(path), zipfile.ZipFile(path) as archive:
        members = {info.filename: info.CRC for info in archive.infolist()}
        for name in ("imgs.npy", "latents_classes.npy"):
            if name not in members:
                raise errors.InputError(f"{path} has no member {name}: give {FILE_NAME}")
        classes = _read_classes(archive, path)
    # The key has checksums of the contents, so that a copy is never used for another file.
    key = f"{path.stat().st_size}-{members['imgs.npy']:08x}-{members['latents_classes.npy']:08x}"
    copy = cache.folder() / f"dsprites-{key}.npy"
    shape = (len(classes), PACKED_BYTES)
    packed = cache.open_array(copy, shape)
    if packed is None:
        _pack(path, copy, len(classes))
        packed = cache.open_array(copy, shape)
    return {"all": DSprites(np.asarray(packed), classes)}


def _find(given: str) -> Path:
    if not given:
        raise errors.InputError(
            f"config.data.path is empty: give the published file, --config.data.path={FILE_NAME}"
        )
    path = Path(given).expanduser()
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise errors.InputError(
            f"{path} is missing: --config.data.path must be {FILE_NAME}, or the folder that has it"
        )
    return path


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turns the errors of a damaged zip or npy file into an InputError that names the file."""
    try:
        yield
    except errors.InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.InputError(
            f"{path} is damaged or not dSprites ({reason}): fetch {FILE_NAME} again"
        ) from error


def _read_classes(archive: zipfile.ZipFile, path: Path) -> np.ndarray:
    """Returns the class indices of all images, [N, 6] uint8."""
    with archive.open("latents_classes.npy") as member:
        shape, dtype = _read_header(member)
        if len(shape) != 2 or shape[1] != len(FACTOR_SIZES) or dtype.kind not in "iu":
            raise errors.InputError(
                f"{path}: latents_classes is {dtype} {list(shape)}, not integers [N, 6]: give "
                f"{FILE_NAME}"
            )
        classes = np.frombuffer(_read_exactly(member, shape[0] * 6 * dtype.itemsize), dtype)
        _expect_end(member)
    classes = classes.reshape(shape)
    if not len(classes) or (classes < 0).any() or (classes >= FACTOR_SIZES).any():
        raise errors.InputError(
            f"{path}: latents_classes is empty or leaves the ranges {FACTOR_SIZES} of dSprites' "
            f"factors: give {FILE_NAME}"
        )
    return classes.astype(np.uint8)


def _pack(path: Path, copy: Path, num_images: int) -> None:
    """Reads the images once, as a stream, and writes them as an npy file [N, 512] uint8."""
    with cache.writing(copy) as file:
        cache.write_header(file, (num_images, PACKED_BYTES))
        for chunk in _read_images(path, num_images):
            file.write(np.packbits(chunk, axis=1).data)


def _read_images(path: Path, num_images: int) -> Iterator[np.ndarray]:
    """Yields the images in order, in chunks [at most CHUNK, 4096] uint8 in {0, 1}."""
    with _blaming(path), zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as member:
        shape, dtype = _read_header(member)
        if shape != (num_images, SIDE, SIDE) or dtype != np.uint8:
            raise errors.InputError(
                f"{path}: imgs is {dtype} {list(shape)}, not uint8 [{num_images}, 64, 64]: give "
                f"{FILE_NAME}"
            )
        for first in range(0, num_images, CHUNK):
            num = min(CHUNK, num_images - first)
            chunk = np.frombuffer(_read_exactly(member, num * SIDE * SIDE), np.uint8)
            if chunk.max() > 1:
                raise errors.InputError(
                    f"{path}: imgs has the value {chunk.max()}, not only 0 and 1: give {FILE_NAME}"
                )
            yield chunk.reshape(num, SIDE * SIDE)
        _expect_end(member)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(member)
    if fortran:
        raise ValueError("an array in Fortran order")
    return shape, dtype


def _read_exactly(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    if len(data) != size:
        raise EOFError(f"an array ends {size - len(data)} bytes early")
    return data


def _expect_end(member: IO[bytes]) -> None:
    # zipfile compares the checksum only when a member is read to its end.
    if member.read(1):
        raise ValueError("bytes after the end of an array")
