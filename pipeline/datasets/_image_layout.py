"""Reads a data set's layout from the names of its images: splits, classes and order.

The order depends only on the names, and its first N examples cover all classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.datasets import _image_files
from pipeline.runtime import errors

HELDOUT = ("heldout", "val", "test")  # the first folder that exists is the held-out split


class Part(NamedTuple):
    """The images of a split in their order, and their class indices [N] int32, if there are any."""

    names: list[str]
    label: np.ndarray | None


class Layout(NamedTuple):
    """The splits, `train` and `heldout` or `all`, and the sorted classes (none: no labels)."""

    parts: dict[str, Part]
    classes: tuple[str, ...]


def read(path: Path) -> Layout:
    """Lists the images of a folder or zip by `[train/ | heldout/, val/ or test/][<class>/]<name>`.

    A split has the first image of every class, then the second of every class, and so on, so that
    its first N examples cover all classes. Within a class names have natural order (2 before 10).

    Raises:
        InputError: there are no images, or the folders do not have such a layout.
    """
    with _image_files.opened(path) as files:
        names = files.names()
    if not names:
        raise errors.InputError(
            f"{path} has no images ({', '.join(_image_files.SUFFIXES)}): give the folder or zip "
            "that has them"
        )
    # Sub-folders are splits only if `train` and a held-out folder are among them, else classes.
    tops = {name.split("/")[0] for name in names if "/" in name}
    heldout = next((top for top in HELDOUT if top in tops), None)
    if "train" not in tops or heldout is None:
        classes = _classes(path, names)
        return Layout({"all": _part("", names, classes)}, classes)
    # Both splits need the same classes, so that a class has the same index in both.
    _check_split(path, names, tops)
    train, held = _inside("train/", names), _inside(f"{heldout}/", names)
    classes = _classes(path / "train", train)
    if unknown := sorted(set(_classes(path / heldout, held)) ^ set(classes)):
        raise errors.InputError(
            f"the class {unknown[0]!r} is in only one of {path / 'train'} and {path / heldout}: "
            "give both the same sub-folders"
        )
    parts = {
        "train": _part("train/", train, classes),
        "heldout": _part(f"{heldout}/", held, classes),
    }
    return Layout(parts, classes)


def _inside(prefix: str, names: Sequence[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _check_split(path: Path, names: Sequence[str], tops: set[str]) -> None:
    known = {"train", *HELDOUT}
    strays = [name for name in names if name.split("/")[0] not in known]
    if strays:
        raise errors.InputError(
            f"{path} is split into {', '.join(sorted(tops & known))}, and has {len(strays)} images "
            f"elsewhere, such as {strays[0]!r}: move them into a part, or away"
        )


def _classes(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the sorted sub-folders, or () if all images lie directly in the folder."""
    loose = sum("/" not in name for name in names)
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    if loose and classes:
        raise errors.InputError(
            f"{path} has {loose} images beside its sub-folders ({classes[0]!r} …), which are the "
            "classes: move them into one, or all out of the sub-folders"
        )
    if len(classes) == 1:
        raise errors.InputError(
            f"{path} has one sub-folder with images, {classes[0]!r}, but at least two classes "
            f"are needed: give what is inside it (--config.data.path={path / classes[0]}, a zip "
            "unpacked), or more classes"
        )
    return tuple(classes)


def _part(prefix: str, names: Sequence[str], classes: Sequence[str]) -> Part:
    if not classes:
        return Part([prefix + name for name in sorted(names, key=_natural)], None)
    rows: list[tuple[int, int, str]] = []
    for label, group in enumerate(classes):
        mine = sorted((n for n in names if n.startswith(f"{group}/")), key=_natural)
        rows += [(rank, label, prefix + name) for rank, name in enumerate(mine)]
    rows.sort()
    return Part([name for _, _, name in rows], np.array([label for _, label, _ in rows], np.int32))


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Returns a sort key that puts 2 before 10; the name itself decides between 1 and 01."""
    # Texts and numbers alternate. Without leading zeros the longer number is the larger one.
    pieces = re.split("0*([0-9]+)", name)
    return [(len(p) if i % 2 else 0, p) for i, p in enumerate(pieces)], name
