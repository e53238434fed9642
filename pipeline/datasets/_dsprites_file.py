"""dSprites' published file: an npz, whose members are read as streams and never unpickled."""

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.datasets import sprites
from pipeline.runtime import errors

FILE_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
FACTOR_SIZES = sprites.FACTOR_SIZES
SIDE = sprites.SIDE
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


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
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


def read_classes(archive: zipfile.ZipFile, path: Path) -> np.ndarray:
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


def read_images(path: Path, num_images: int) -> Iterator[np.ndarray]:
    """Yields the images in order, in chunks [at most CHUNK, 4096] uint8 in {0, 1}."""
    with blaming(path), zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as member:
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
