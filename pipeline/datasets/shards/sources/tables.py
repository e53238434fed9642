"""What an image and its labels are called in tables: parquet files and Hugging Face's data sets."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline import datasets
from pipeline.runtime import errors, files

IMAGES = ("image", "img", "jpg", "jpeg", "png", "pixel_values", "picture")
LABELS = ("label", "labels", "cls", "class", "target", "fine_label", "digit")


class Columns(NamedTuple):
    """The columns of a table that are used."""

    image: str
    label: str  # "": none
    factors: tuple[str, ...]
    sizes: Mapping[str, int]  # numbers of classes; 0: as many as are found
    class_names: Mapping[str, Sequence[str]]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.image, *([self.label] if self.label else []), *self.factors]

    @property
    def entries(self) -> dict[str, datasets.Classes]:
        """The entries of an example."""
        entries = {}
        if self.label:
            size, names = self.sizes[self.label], self.class_names.get(self.label, ())
            entries["label"] = datasets.label(size, names if size else ())
        if self.factors:
            sizes = tuple(self.sizes[name] for name in self.factors)
            entries["factors"] = datasets.factors(sizes, self.factors, self.class_names)
        return entries

    def row(self, row: Mapping[str, Any]) -> dict[str, int | tuple[int, ...]]:
        """Returns the label and the factors of a row, in which they are whole numbers."""
        entries: dict[str, int | tuple[int, ...]] = {}
        if self.label:
            entries["label"] = int(row[self.label])
        if self.factors:
            entries["factors"] = tuple(int(row[name]) for name in self.factors)
        return entries


@dataclasses.dataclass(frozen=True)
class Library:
    """The splits of a data set that a library reads."""

    given: str  # path or name
    splits: Mapping[str, str]  # the name of the split of each part; "": there is only one
    parts: Mapping[str, int]
    columns: Columns
    shape = None  # of the images: not known before they are read

    @property
    def entries(self) -> Mapping[str, Any]:
        """The label and the factors."""
        return self.columns.entries

    @property
    def identity(self) -> str:
        """The splits and the columns."""
        return files.digest([self.splits, self.parts, self.columns])


def columns(
    images: Sequence[str],
    classes: Mapping[str, Sequence[str]],
    switches: Sequence[str],
    numbers: Sequence[str],
    shown: str,
) -> Columns:
    """Chooses the image, the label and the factors of a table.

    Args:
        images: names of columns that hold images.
        classes: names of columns of class indices, and of their classes.
        switches: names of columns that are true or false.
        numbers: names of columns of whole numbers.
        shown: the source, for errors.

    Raises:
        InputError: no column, or more than one, could be the image.
    """
    named = [name for name in images if name.lower() in IMAGES] or list(images)
    if len(named) != 1:
        found = ", ".join(map(repr, named)) or "none"
        raise errors.InputError(
            f"{shown} must have one column of images, and has {found}: name one of them 'image'"
        )
    known = [name for name in (*classes, *numbers) if name.lower() in LABELS]
    label = min(known, key=lambda name: LABELS.index(name.lower()), default="")
    if not label and len(classes) == 1:
        (label,) = classes
    factors = tuple(name for name in (*classes, *switches) if name != label)
    sizes = {name: len(names) for name, names in classes.items()}
    sizes |= dict.fromkeys(numbers, 0) | dict.fromkeys(switches, 2)
    return Columns(named[0], label, factors, sizes, dict(classes))
