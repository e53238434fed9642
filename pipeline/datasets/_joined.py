"""Several sources as one, such as the published splits of a data set."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pipeline.datasets import Source


def whole(parts: "Mapping[str, Source]") -> "Source":
    """Returns all examples of a data set, whose `load` returned these parts."""
    return parts["all"] if "all" in parts else Joined(tuple(parts.values()))


class Joined(NamedTuple):
    """The examples of the first source, followed by those of the others."""

    sources: tuple["Source", ...]

    def __len__(self) -> int:
        """Returns the number of examples of all sources."""
        return sum(map(len, self.sources))

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays of the examples at `indices`, in their order."""
        ends = np.cumsum([len(source) for source in self.sources])
        owners = np.searchsorted(ends, indices, side="right")
        whole: dict[str, np.ndarray] = {}
        for number, source in enumerate(self.sources):
            own = np.flatnonzero(owners == number)
            if not own.size:
                continue
            found = source.read(indices[own] - (ends[number] - len(source)))
            for name, values in found.items():
                shape = (len(indices), *values.shape[1:])
                whole.setdefault(name, np.empty(shape, values.dtype))[own] = values
        return whole
