"""WebDataset: tar files, in which the members of an example have one name and several suffixes.

An image has its usual suffix. `cls` holds the number of its class, or `json` a `label`. Members are
found by their place in the tar, so nothing is unpacked.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import datasets
from pipeline.datasets import _image_files, _image_layout
from pipeline.datasets.shards import sources
from pipeline.datasets.shards.sources import parts
from pipeline.runtime import errors


class Member(NamedTuple):
    """Where an example's content lies."""

    name: str
    tar: int  # number of the file
    image: tuple[int, int]  # offset and bytes
    label: tuple[int, int, str] | None  # offset, bytes, and the suffix


class Tars(NamedTuple):
    """The examples of tar files."""

    paths: Sequence[Path]
    members: Mapping[str, Sequence[Member]]  # by part
    shape: None = None

    @property
    def parts(self) -> Mapping[str, int]:
        """The numbers of examples by part."""
        return {part: len(members) for part, members in self.members.items()}

    @property
    def entries(self) -> Mapping[str, datasets.Classes]:
        """The label, if every example has one; the number of classes is found."""
        labelled = any(one.label for members in self.members.values() for one in members)
        return {"label": datasets.label(0)} if labelled else {}

    @property
    def identity(self) -> str:
        """A digest of the names and their order."""
        names = [[part, *(one.name for one in members)] for part, members in self.members.items()]
        return datasets.digest(json.dumps(names).encode())

    def rows(self, part: str, first: int, stop: int) -> Iterator[sources.Row]:
        """Yields the images with their label."""
        number, descriptor = -1, -1
        try:
            for member in self.members[part][first:stop]:
                if member.tar != number:
                    if descriptor >= 0:
                        os.close(descriptor)
                    number = member.tar
                    descriptor = os.open(self.paths[number], os.O_RDONLY | os.O_CLOEXEC)
                offset, size = member.image
                label = self._label(descriptor, member)
                yield sources.Row(member.name, os.pread(descriptor, size, offset), label)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _label(self, descriptor: int, member: Member) -> dict[str, int]:
        if member.label is None:
            return {}
        offset, size, suffix = member.label
        content = os.pread(descriptor, size, offset)
        try:
            value: Any = json.loads(content)
            if suffix == "json":
                value = value["label"]
            if type(value) is not int:
                raise ValueError(value)
        except (ValueError, KeyError, TypeError):
            raise errors.InputError(
                f"{self.paths[member.tar]}: the {suffix} of {member.name!r} holds no whole number "
                "as the label"
            ) from None
        return {"label": value}


def opened(paths: Sequence[Path], shown: str) -> Tars:
    """Lists the members of tar files, which are in natural order.

    Raises:
        InputError: a file is no tar, or some examples have labels and others none.
    """
    paths = sorted(paths, key=lambda path: _image_layout.natural(path.name))
    chosen = parts.chosen([path.name for path in paths], shown)
    number = {path.name: k for k, path in enumerate(paths)}
    members = {
        part: [one for name in names for one in _members(paths[number[name]], number[name])]
        for part, names in chosen.items()
    }
    for part, found in members.items():
        if not found:
            raise errors.InputError(f"{shown} has no images in its part {part!r}")
    every = [one for found in members.values() for one in found]
    lacking = [one.name for one in every if one.label is None]
    if 0 < len(lacking) < len(every):
        raise errors.InputError(f"{shown}: {lacking[0]!r} has no label, but others have one")
    return Tars(paths, members)


def _has_label(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bool:
    """Says whether a member may hold a label; other data sets keep texts or sizes there."""
    file = archive.extractfile(info)
    return file is not None and b'"label"' in file.read()


def _members(path: Path, number: int) -> Iterator[Member]:
    """Yields the examples of a tar, in its order."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, tuple[int, int, str]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                folder, _, last = info.name.rpartition("/")
                key, _, suffix = last.partition(".")
                key, suffix = f"{folder}/{key}".lstrip("/"), suffix.lower()
                if not info.isreg():
                    continue
                if f".{suffix}" in _image_files.SUFFIXES:
                    images[key] = info.offset_data, info.size
                elif suffix == "cls" or (
                    suffix == "json" and key not in labels and _has_label(archive, info)
                ):
                    labels[key] = info.offset_data, info.size, suffix
    except (tarfile.TarError, OSError, EOFError) as error:
        raise errors.InputError(
            f"{path} is no whole tar ({error}): unpack it if it is compressed, or fetch it again"
        ) from error
    for key, place in images.items():
        yield Member(f"{path.name}/{key}", number, place, labels.get(key))
