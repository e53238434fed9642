"""Data sets: one file each; `config.data.name` is the file's name. Here is what such a file gives.

A name with a dot is a module from outside this package, `my_package.my_data`. Each defines
`spec(section)`, one abstract example, and `load(section)`, its parts: `train` and `heldout` if a
split is published, else `all`. `section` is `config.data`.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.runtime import errors, registry


@dataclasses.dataclass(frozen=True)
class Classes:
    """An abstract entry of class indices, int32, used where a `jax.ShapeDtypeStruct` would stand.

    The data set promises that every index of column i lies in 0 … num_classes[i] − 1.
    """

    num_classes: tuple[int, ...]  # of one label (shape []), or of each column (shape [n])
    shape: tuple[int, ...]  # of one example's entry, [] or [n]
    dtype: type = np.int32
    names: tuple[str, ...] = ()  # of the columns, where they have names


def label(num_classes: int) -> Classes:
    """Returns the entry of one label with that many classes."""
    return Classes((num_classes,), ())


def factors(sizes: tuple[int, ...], names: tuple[str, ...]) -> Classes:
    """Returns the entry of a row of labels, one for each of the sizes, and what they are called."""
    assert len(sizes) == len(names), (sizes, names)
    return Classes(tuple(sizes), (len(sizes),), names=tuple(names))


class Source(Protocol):
    """Random access to the examples of a data set, a batch at a time, from several threads."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns arrays [n, ...] for the int64 indices [n]; `image` is uint8."""


class Splits(NamedTuple):
    """The disjoint parts of a data set."""

    train: Source
    heldout: Source


class Subset(NamedTuple):
    """The examples `indices` of `source`, in that order."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        """Returns the number of chosen examples."""
        return self.indices.size

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads through to the source."""
        return self.source.read(self.indices[indices])


def example_spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example of the data set that the config names; reads no image.

    Entries have shape and dtype; class indices are a `Classes`.
    """
    return _module(config).spec(config.data)


def load(config: Any) -> Splits:
    """Opens the data set and splits it.

    Where no split is published, `data.heldout_examples` examples, chosen by the seed, are held out.
    Of what remains, the first `data.train_examples` are trained on: in the data set's own order
    where the split is published, else in the seed's.

    Raises:
        InputError: the files are missing or damaged, or the split leaves too little to train on.
    """
    parts = _module(config).load(config.data)
    if "all" in parts:
        source, held = parts["all"], config.data.heldout_examples
        if not 1 <= held < len(source):
            raise errors.InputError(
                f"config.data.heldout_examples={held} must lie between 1 and {len(source) - 1}"
            )
        # RandomState, not Generator: its stream is frozen (NEP 19), and a split must never change.
        drawn = np.random.RandomState(config.seed % 2**32).permutation(len(source))
        splits = Splits(Subset(source, drawn[held:]), Subset(source, drawn[:held]))
    else:
        splits = Splits(parts["train"], parts["heldout"])
    if num := config.data.train_examples:
        if not 1 <= num <= len(splits.train):
            raise errors.InputError(
                f"config.data.train_examples={num} must lie between 1 and {len(splits.train)}, or "
                "be 0 for all"
            )
        splits = splits._replace(train=Subset(splits.train, np.arange(num)))
    if len(splits.train) < config.batch_size:
        raise errors.InputError(
            f"config.batch_size={config.batch_size} exceeds the {len(splits.train)} training "
            f"examples of {config.data.name}"
        )
    return splits


def _module(config: Any) -> Any:
    return registry.load("datasets", config.data.name, field="data.name")
