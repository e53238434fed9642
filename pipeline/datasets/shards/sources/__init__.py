"""What can be prepared: each kind of source is a file here. This module holds their contract."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline import datasets


class Row(NamedTuple):
    """An example as its source has it."""

    name: str  # for messages
    content: bytes | np.ndarray  # of an image file; or pixels [H, W] or [H, W, C] uint8
    entries: Mapping[str, int | tuple[int, ...]] = {}  # the label, the factors
    reason: str = ""  # why it cannot be read; then the content is empty


class Source(Protocol):
    """Examples in an order that depends only on their names. It can be sent to other processes."""

    @property
    def parts(self) -> Mapping[str, int]:
        """The numbers of examples of `train` and `heldout`, or of `all`."""

    @property
    def entries(self) -> Mapping[str, datasets.Classes]:
        """The label and the factors, if there are any; 0 classes: as many as are found."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """H, W, C of the images if all are alike and need no decoder; None: files."""

    @property
    def identity(self) -> str:
        """A text that stands for the names of the examples and for their order."""

    def rows(self, part: str, first: int, stop: int) -> Iterator[Row]:
        """Yields the examples `first` … `stop` − 1 of a part."""


def pixels(value: Any) -> tuple[np.ndarray, str]:
    """Returns an array of pixels with its channels, and why it cannot be prepared."""
    array = np.asarray(value)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or array.dtype.kind not in "iu":
        return np.zeros((1, 1, 1), np.uint8), f"{array.dtype} {list(array.shape)} are no pixels"
    if array.size and not 0 <= array.min() <= array.max() <= 255:
        return np.zeros((1, 1, 1), np.uint8), f"pixels of {array.min()} to {array.max()}"
    return array.astype(np.uint8), ""
