"""Arrays in an npy or npz file: images [N, H, W] or [N, H, W, C] uint8, and labels.

In an npz the names say what an array is: `images`, `labels` and `factors`, or `x` and `y`, with
`train` and `test` before or after them if the file has parts.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline import datasets
from pipeline.datasets import _image_parts, _paths
from pipeline.datasets.shards import sources
from pipeline.datasets.shards.sources import parts
from pipeline.runtime import errors

ROLES = {
    "image": ("image", "images", "imgs", "x", "data", "arr"),
    "label": ("label", "labels", "y", "targets"),
    "factors": ("factors", "attributes", "latentsclasses"),
}
CHUNK = 256  # images that are read at once
NEEDED = "arrays of uint8 [N, H, W] or [N, H, W, C] with 1, 3 or 4 channels"


class Arrays(NamedTuple):
    """The arrays of a file, by part."""

    path: Path
    images: Mapping[str, str]  # names of arrays by part; "" in an npy
    columns: Mapping[str, Mapping[str, np.ndarray]]  # by part: label [N], factors [N, n]
    shapes: Mapping[str, tuple[int, ...]]  # by part: [N, H, W] or [N, H, W, C]
    dtype: str

    @property
    def parts(self) -> Mapping[str, int]:
        """The numbers of images by part."""
        return {part: shape[0] for part, shape in self.shapes.items()}

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C of the images."""
        _, height, width, *channels = next(iter(self.shapes.values()))
        return height, width, *(channels or [1])  # type: ignore[return-value]

    @property
    def entries(self) -> Mapping[str, datasets.Classes]:
        """The label and the factors, whose numbers of classes are found."""
        found = next(iter(self.columns.values()))
        entries = {"label": datasets.label(0)} if "label" in found else {}
        if "factors" in found:
            num = found["factors"].shape[1]
            names = tuple(f"factor {k}" for k in range(num))
            entries["factors"] = datasets.factors((0,) * num, names)
        return entries

    @property
    def identity(self) -> str:
        """The names of the arrays, and how many images they have."""
        return datasets.digest(repr((sorted(self.images.items()), self.shapes)).encode())

    def rows(self, part: str, first: int, stop: int) -> Iterator[sources.Row]:
        """Yields the images, with their label and factors."""
        columns = self.columns[part]
        for k, image in enumerate(self._images(part, first, stop), first):
            entries: dict[str, Any] = {}
            for name, column in columns.items():
                entries[name] = int(column[k]) if column.ndim == 1 else column[k].tolist()
            yield sources.Row(f"{self.images[part] or 'image'} {k}", image, entries)

    def _images(self, part: str, first: int, stop: int) -> Iterator[np.ndarray]:
        shape, scale = self.shapes[part], 255 if self.dtype == "|b1" else 1
        if not self.images[part]:
            mapped = np.load(self.path, mmap_mode="r")
            yield from (_with_channels(image * np.uint8(scale)) for image in mapped[first:stop])
            return
        size = int(np.prod(shape[1:]))
        name = f"{self.images[part]}.npy"
        with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
            _header(file)
            file.seek(first * size, 1)
            for begin in range(first, stop, CHUNK):
                num = min(CHUNK, stop - begin)
                content = file.read(num * size)
                if len(content) < num * size:
                    raise errors.InputError(f"{self.path} is damaged: make it again")
                chunk = np.frombuffer(content, np.uint8).reshape(num, *shape[1:])
                yield from (_with_channels(image * np.uint8(scale)) for image in chunk)


def opened(text: str) -> Arrays:
    """Opens an npy or npz file; reads the labels, and no image.

    Raises:
        InputError: it is damaged, or has no images that can be prepared.
    """
    path = _paths.expanded(text)
    _paths.kind(path, "an npy or npz file")
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                shape, fortran, dtype = _header(file)
            _check(path, "the array", shape, fortran, dtype)
            return Arrays(path, {"all": ""}, {"all": {}}, {"all": shape}, dtype.str)
        return _archive(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, errors.InputError):
            raise
        raise errors.InputError(f"{path} is no whole {path.suffix} file: {error}") from error


def _archive(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        images = [name for name in names if _role(name) == "image"]
        if not images:
            raise errors.InputError(
                f"{path} has no array of images, only {', '.join(names)[:200]}: call one 'images'"
            )
        chosen, columns, shapes, dtypes = parts.chosen(images, str(path)), {}, {}, set()
        for part, found in chosen.items():
            if len(found) > 1:
                raise errors.InputError(f"{path} has {found[0]!r} and {found[1]!r}: keep one")
            with archive.open(f"{found[0]}.npy") as file:
                shapes[part], fortran, dtype = _header(file)
            _check(path, found[0], shapes[part], fortran, dtype)
            dtypes.add(dtype.str)
            same = [name for name in names if parts.kind(name) == parts.kind(found[0])]
            columns[part] = _columns(path, archive, same, shapes[part][0])
    if len({shape[1:] for shape in shapes.values()}) > 1 or len(dtypes) > 1:
        raise errors.InputError(f"{path} has parts of different shapes: {shapes}")
    if len({tuple(sorted(one)) for one in columns.values()}) > 1:
        raise errors.InputError(f"{path} has labels for only one part: add them, or take them out")
    return Arrays(
        path, {part: one[0] for part, one in chosen.items()}, columns, shapes, dtypes.pop()
    )


def _columns(
    path: Path, archive: zipfile.ZipFile, names: list[str], num: int
) -> dict[str, np.ndarray]:
    found = {}
    for name in names:
        role = _role(name)
        if role not in ("label", "factors"):
            continue
        with archive.open(f"{name}.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.shape[:1] != (num,) or array.ndim > 2 or array.dtype.kind not in "iub":
            raise errors.InputError(
                f"{path}: {name!r} is {array.dtype} {list(array.shape)}, and must hold whole "
                f"numbers for {num} images"
            )
        found["label" if array.ndim == 1 else "factors"] = array.astype(np.int64)
    return found


def _role(name: str) -> str:
    words = re.findall("[a-z]+", name.lower())
    rest = "".join(word for word in words if not _image_parts.kind(word))
    rest = rest or "".join(words)
    return next((role for role, texts in ROLES.items() if rest in texts), "")


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream: BinaryIO = file
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return read(stream)


def _check(path: Path, name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype) -> None:
    channels = shape[3] if len(shape) == 4 else 1
    if dtype.str not in ("|u1", "|b1") or len(shape) not in (3, 4) or channels not in (1, 3, 4):
        raise errors.InputError(
            f"{path}: {name} is {dtype} {list(shape)}, and only {NEEDED} can be prepared"
        )
    if fortran or not all(shape):
        raise errors.InputError(f"{path}: {name} is empty or in Fortran's order: save it again")


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image
