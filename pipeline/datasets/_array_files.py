"""Reads NumPy files: which arrays there are, in which parts, and whether they fit together.

An .npy is mapped and an .npz is read as a whole. Nothing is ever unpickled.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets import _paths
from pipeline.runtime import errors

MAGIC = b"\x93NUMPY"  # with which an .npy begins
PARTS = ("train", "heldout")
WANTED = "an .npy or .npz file, or a folder with image.npy"
CLASSES = ("label", "factors")


@functools.lru_cache(maxsize=1)
def read(given: str) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays of each part, by part and name; opens the files once per process.

    Args:
        given: config.data.path.

    Raises:
        InputError: a file is missing, damaged or of another kind, or arrays do not fit together.
    """
    if not given:
        raise errors.InputError(f"config.data.path is empty: give {WANTED}, --config.data.path=…")
    path = _paths.expanded(given)
    found = {"all": path}
    if _paths.kind(path, WANTED) == "folder":
        inner = {part: _part(path, part) for part in PARTS}
        if known := [part for part in PARTS if inner[part]]:
            if len(known) == 1:
                (lacking,) = set(PARTS) - set(known)
                raise errors.InputError(
                    f"{path} has the part {known[0]!r} and no {lacking!r}: add {path / lacking}, a "
                    "folder, .npy or .npz; or let the path name the one part, which is then split"
                )
            found = {part: place for part, place in inner.items() if place}
    parts = {part: _opened(place) for part, place in found.items()}
    for part, arrays in parts.items():
        _check(arrays, found[part])
    first, *others = parts.values()
    for other in others:
        if _kinds(first) != _kinds(other):
            raise errors.InputError(
                f"{found['train']} has {_kinds(first)}, and {found['heldout']} {_kinds(other)}: "
                "both parts need the same arrays, of the same dtype and shape of an example"
            )
    return parts


def _part(path: Path, part: str) -> Path | None:
    places = [path / part, path / f"{part}.npy", path / f"{part}.npz"]
    return next((place for place in places if place.exists()), None)


def _opened(path: Path) -> dict[str, np.ndarray]:
    """Opens an .npy as `image`, an .npz, or a folder of .npy files by their names."""
    if _paths.kind(path, WANTED) == "folder":
        files = sorted(path.glob("*.npy"))
        if path / "image.npy" not in files:
            others = ", ".join(file.name for file in files)
            raise errors.InputError(
                f"{path} has no image.npy{f' (only {others})' if others else ''}: "
                "save the images there, [N, H, W, C]"
            )
        found = {file.stem: _array(file) for file in files}
        if odd := [name for name, array in found.items() if isinstance(array, dict)]:
            raise errors.InputError(f"{path / odd[0]}.npy is an .npz: give it its name, by itself")
        return found
    found = _array(path)
    if isinstance(found, np.ndarray):
        return {"image": found}
    if "image" not in found:
        raise errors.InputError(
            f"{path} has the arrays {', '.join(found) or 'none'}, and none with the name 'image': "
            "save it with np.savez(path, image=…, label=…)"
        )
    return found


def _array(path: Path) -> Any:
    """Returns an array, or a dictionary of arrays of an .npz."""
    _paths.kind(path, WANTED)  # a pipe would be waited for
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                # Indexing is faster than of a memory map, and the file stays mapped.
                return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            file.seek(0)
            with np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
    except Exception as error:  # NumPy and zipfile raise any error on damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "pickle" in reason or "Python objects" in reason:
            reason = "it is no NumPy file, or holds Python objects, which are never unpickled"
        raise errors.InputError(
            f"{path} cannot be read ({reason}): save it with np.save or np.savez, as an array of "
            "numbers"
        ) from None


def _check(arrays: dict[str, np.ndarray], path: Path) -> None:
    num = len(arrays["image"]) if arrays["image"].ndim else 0
    if not num:
        raise errors.InputError(f"{path} has no images: `image` must be [N, H, W, C]")
    if arrays["image"].ndim != 4:
        raise errors.InputError(
            f"{path} has `image` {list(arrays['image'].shape)}, which must be [N, H, W, C]: "
            "[N, H, W, 1] for grey, [N, L, 1, C] for signals; of volumes take the slices"
        )
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != num:
            raise errors.InputError(
                f"{path} has {num} images and `{name}` {list(array.shape)}: each array needs one "
                "row for each image"
            )
        if name == "image":
            continue
        dims = 2 if name == "factors" else 1
        if name in CLASSES and (array.dtype.kind not in "iu" or array.ndim != dims):
            raise errors.InputError(
                f"{path} has `{name}` {array.dtype} {list(array.shape)}: it must hold whole "
                f"numbers from 0 on, {'[N, k]' if dims == 2 else '[N]'}"
            )
        if name in CLASSES and array.min() < 0:
            raise errors.InputError(f"{path} has the {name} {array.min()}: classes begin at 0")
        if name not in CLASSES and (array.dtype.kind != "f" or array.ndim > 2):
            raise errors.InputError(
                f"{path} has `{name}` {array.dtype} {list(array.shape)}: arrays beside image and "
                "labels are attributes, floats [N] or [N, k]; take this one out"
            )


def _kinds(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(
        f"{name} {'of classes' if name in CLASSES else a.dtype} {list(a.shape[1:])}"
        for name, a in sorted(arrays.items())
    )
