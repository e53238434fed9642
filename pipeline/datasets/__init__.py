"""Data sets: one file each; `config.data.name` names the file. This module holds its contract.

Each file defines two functions of `section`, which is `config.data`. `spec(section)` returns one
abstract example. `load(section)` returns a dictionary of sources: `train` and `heldout` if splits
are published, otherwise `all`. A name with a dot, such as `my_package.my_data`, is a module from
outside this package.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.runtime import errors, registry


@dataclasses.dataclass(frozen=True)
class Classes:
    """An abstract entry of class indices, int32; it takes the place of a `jax.ShapeDtypeStruct`.

    The data set guarantees that every index of column i lies in 0 … num_classes[i] − 1.
    """

    num_classes: tuple[int, ...]  # of one label (shape []), or of each column (shape [n])
    shape: tuple[int, ...]  # of one example's entry, [] or [n]
    dtype: type = np.int32
    names: tuple[str, ...] = ()  # of the columns, if they have names


def label(num_classes: int) -> Classes:
    """Returns the abstract entry of one label with `num_classes` classes."""
    return Classes((num_classes,), ())


def factors(sizes: tuple[int, ...], names: tuple[str, ...]) -> Classes:
    """Returns the abstract entry of a row of labels, with a size and a name for each."""
    assert len(sizes) == len(names), (sizes, names)
    return Classes(tuple(sizes), (len(sizes),), names=tuple(names))


class Source(Protocol):
    """Random access to the examples of a data set, one batch per call, from several threads."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns arrays [n, ...] for the int64 indices [n]; `image` is uint8."""


class Splits(NamedTuple):
    """The disjoint splits of a data set."""

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
        """Returns the source's arrays for the chosen examples at `indices`."""
        return self.source.read(self.indices[indices])


def example_spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example of the data set that the config names; reads no image.

    Every entry has a shape and a dtype. Class indices are a `Classes`.
    """
    return _module(config).spec(config.data)


def load(config: Any) -> Splits:
    """Opens the data set and splits it.

    If no splits are published, the seed chooses `data.heldout_examples` examples to hold out. The
    training split is the first `data.train_examples` of the rest. The rest keeps the data set's own
    order if splits are published; otherwise the seed draws an order.

    Raises:
        InputError: the files are missing or damaged, or too few examples remain for training.
    """
    parts = _module(config).load(config.data)
    if "all" in parts:
        source, held = parts["all"], config.data.heldout_examples
        errors.check_range("config.data.heldout_examples", held, 1, len(source) - 1)
        # RandomState, not Generator: its stream is frozen (NEP 19), and a split must never change.
        drawn = np.random.RandomState(config.seed % 2**32).permutation(len(source))
        splits = Splits(Subset(source, drawn[held:]), Subset(source, drawn[:held]))
    else:
        splits = Splits(parts["train"], parts["heldout"])
    if num := config.data.train_examples:
        errors.check_range(
            "config.data.train_examples", num, 1, len(splits.train), hint=", or be 0 for all"
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
