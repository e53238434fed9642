"""Reads a data set's layout from the names of its images: splits, classes and order.

The order depends only on the names, and its first N examples cover all classes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.datasets import _image_files, _image_parts
from pipeline.runtime import errors


class Part(NamedTuple):
    """The images of a split in their order, and their class indices [N] int32, if there are any."""

    names: list[str]
    label: np.ndarray | None


class Layout(NamedTuple):
    """The splits, `train` and `heldout` or `all`, and the classes in their order (none: no labels).

    What is not read is in `unread`, files by name, and in `unused`, the numbers of images of parts
    that are neither trained on nor held out.
    """

    parts: dict[str, Part]
    classes: tuple[str, ...]
    unread: list[str] = []  # noqa: RUF012
    unused: dict[str, int] = {}  # noqa: RUF012


def read(path: Path) -> Layout:
    """Lists the images of a folder or zip by `[train/ | val/ …][<class>/]<name>`.

    One folder around all of this is left out, as a zip often has it. Classes, and names within a
    class, have natural order (2 before 10). A split has the first image of every class, then the
    second of every class, and so on, so that its first N examples cover all classes.

    Raises:
        InputError: there are no images, or the folders do not have such a layout.
    """
    with _image_files.opened(path) as files:
        listing = files.listing()
    if not listing.images:
        raise errors.InputError(
            f"{path} has no images ({', '.join(_image_files.SUFFIXES)}): give the folder or zip "
            f"that has them{_seen(listing.others)}"
        )
    around = _around(listing, is_zip=isinstance(files, _image_files.Archive))
    inner = _inside(around, listing)
    tops = sorted({folder.split("/")[0] for folder in inner.folders}, key=natural)
    divided = _image_parts.divided(path / around, tops)
    if divided is None:
        classes = _classes(path / around, inner)
        return Layout({"all": _part(around, inner.images, classes)}, classes, listing.others)
    train, heldout = divided
    _check_split(path, inner, [train, *heldout])
    # Both splits need the same classes, so that a class has the same index in both.
    places = {"train": f"{around}{train}/", "heldout": f"{around}{heldout[0]}/"}
    within = {part: _inside(place, listing) for part, place in places.items()}
    found = {part: _classes(path / places[part], within[part]) for part in places}
    if unknown := sorted(set(found["train"]) ^ set(found["heldout"])):
        raise errors.InputError(
            f"the class {unknown[0]!r} is in only one of {path / places['train']} and "
            f"{path / places['heldout']}: give both the same sub-folders"
        )
    parts = {
        part: _part(place, within[part].images, found["train"]) for part, place in places.items()
    }
    unused = {top: len(_inside(f"{around}{top}/", listing).images) for top in heldout[1:]}
    return Layout(parts, found["train"], listing.others, unused)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Returns a sort key that puts 2 before 10; the name itself decides between 1 and 01."""
    # Texts and numbers alternate. Without leading zeros the longer number is the larger one.
    pieces = re.split("0*([0-9]+)", name)
    return [(len(p) if i % 2 else 0, p) for i, p in enumerate(pieces)], name


def _around(listing: _image_files.Listing, *, is_zip: bool) -> str:
    """Returns the folders that lie around all others, such as "photos/", or "".

    A folder with images directly in it may be the only class of a folder, and is refused there. In
    a zip it is how systems pack a folder of images.
    """
    around, inner = "", listing
    while True:
        tops = {folder.split("/")[0] for folder in inner.folders}
        if len(tops) != 1 or any("/" not in name for name in inner.images):
            return around
        (top,) = tops
        deeper = _inside(f"{around}{top}/", listing)
        is_flat = any("/" not in name for name in deeper.images)
        if _image_parts.kind(top) or (is_flat and not is_zip):
            return around
        around, inner = f"{around}{top}/", deeper


def _inside(prefix: str, listing: _image_files.Listing) -> _image_files.Listing:
    if not prefix:
        return listing
    return _image_files.Listing(
        *(
            [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            for names in listing
        )
    )


def _check_split(path: Path, inner: _image_files.Listing, known: list[str]) -> None:
    strays = [name for name in inner.images if name.split("/")[0] not in known]
    if strays:
        raise errors.InputError(
            f"{path} is split into {', '.join(sorted(known))}, and has {len(strays)} images "
            f"elsewhere, such as {strays[0]!r}: move them into a part, or away"
        )
    for part in known[:2]:
        if not any(name.startswith(f"{part}/") for name in inner.images):
            raise errors.InputError(
                f"{path / part} has no images{_seen(inner.others, f'{part}/')}: fill it, or move "
                "it away"
            )


def _classes(path: Path, inner: _image_files.Listing) -> tuple[str, ...]:
    """Returns the sub-folders in natural order, or () if all images lie directly in the folder."""
    _image_parts.check_inside(path, inner.images)
    loose = sum("/" not in name for name in inner.images)
    classes = sorted({n.split("/")[0] for n in inner.images if "/" in n}, key=natural)
    if loose and classes:
        raise errors.InputError(
            f"{path} has {loose} images beside its sub-folders ({classes[0]!r} …), which are the "
            "classes: move them into one, or all out of the sub-folders"
        )
    folders = {folder.split("/")[0] for folder in inner.folders}
    if classes and (empty := sorted(folders - set(classes), key=natural)):
        raise errors.InputError(
            f"{path / empty[0]} is a class without images"
            f"{_seen(inner.others, f'{empty[0]}/') or ' (it is empty)'}: add images that can be "
            "read, or move the folder away"
        )
    if len(classes) == 1:
        raise errors.InputError(
            f"{path} has one sub-folder with images, {classes[0]!r}, but at least two classes "
            f"are needed: give what is inside it (--config.data.path={path / classes[0]}, a zip "
            "unpacked), or more classes"
        )
    _image_parts.check_names(path, classes)
    return tuple(classes)


def _seen(others: Sequence[str], prefix: str = "") -> str:
    """Returns which other files there are, such as " (only .heic, .txt)"."""
    kinds = Counter(suffix(name) for name in others if name.startswith(prefix))
    return f" (only {', '.join(sorted(kinds))})" if kinds else ""


def suffix(name: str) -> str:
    """Returns what kind of file a name means, such as ".csv"."""
    if name.endswith("/"):
        return "hidden folders"
    return Path(name).suffix.lower() or "files without a suffix"


def _part(prefix: str, names: Sequence[str], classes: Sequence[str]) -> Part:
    if not classes:
        return Part([prefix + name for name in sorted(names, key=natural)], None)
    label = {name: index for index, name in enumerate(classes)}
    groups: list[list[str]] = [[] for _ in classes]
    for name in names:
        groups[label[name.split("/")[0]]].append(name)
    rows = [
        (rank, index, prefix + name)
        for index, group in enumerate(groups)
        for rank, name in enumerate(sorted(group, key=natural))
    ]
    rows.sort()
    return Part([name for _, _, name in rows], np.array([index for _, index, _ in rows], np.int32))
