"""Data sets: how they are opened, split and read; the form of their batches, and those held out.

The batches of training are read by `training_batches`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import errors, named, sharding


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

    Entries have shape and dtype; class indices are a `features.Classes`.
    """
    return named.load("datasets", config.data.name, field="data.name").spec(config.data)


def load(config: Any) -> Splits:
    """Opens the data set and splits it.

    Where no split is published, `data.heldout_examples` examples, chosen by the seed, are held out.
    Of what remains, the first `data.train_examples` are trained on: in the data set's own order
    where the split is published, else in the seed's.

    Raises:
        InputError: the files are missing or damaged, or the split leaves too little to train on.
    """
    parts = named.load("datasets", config.data.name, field="data.name").load(config.data)
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


def check_batch(config: Any, mesh: Mesh) -> None:
    """Raises an InputError where a training batch of the config can't be cut over the mesh."""
    sharding.check_batch(
        config.batch_size,
        mesh=mesh,
        accumulation_steps=config.accumulation_steps,
        deterministic_shards=config.deterministic_shards,
    )


def heldout_batches(
    source: Source, config: Any, mesh: Mesh, *, num: int | None = None
) -> Iterator[tuple[int, dict[str, jax.Array]]]:
    """Yields (first position, batch) over the first `num` held-out examples, in order.

    Without `num` they are `config.eval_examples`; 0 stands for all. Batches have
    `config.eval_batch_size` examples, or the training's number where that is 0. The last batch is
    padded and masked, so that every process takes the same number of steps.
    """
    batch_size = config.eval_batch_size or config.batch_size
    wanted = config.eval_examples if num is None else num
    num = min(wanted or len(source), len(source))
    rows = batch_size // jax.process_count()
    for first in range(0, num, batch_size):
        positions = first + jax.process_index() * rows + np.arange(rows)
        batch = read(source, np.minimum(positions, num - 1), config)
        batch["mask"] = (positions < num).astype(np.float32)
        yield first, sharding.to_global(batch, mesh)


def first_images(source: Source, config: Any, num: int) -> dict[str, np.ndarray]:
    """Returns the first `num` held-out examples, the same on every process."""
    return read(source, np.arange(min(num, len(source))), config)


def abstract_batch(config: Any, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, types and shardings of a global batch."""
    spec = {**example_spec(config), "mask": jax.ShapeDtypeStruct((), np.float32)}
    return {
        name: jax.ShapeDtypeStruct(
            (config.batch_size, *leaf.shape), leaf.dtype, sharding=sharding.batch_sharded(mesh)
        )
        for name, leaf in spec.items()
    }


def read(source: Source, indices: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Returns the examples `indices` [n] as a model sees them, and `mask` [n], all ones."""
    return examples(source, indices, config) | {"mask": np.ones(indices.shape, np.float32)}


def examples(source: Source, indices: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Returns the examples `indices` [n] without a mask."""
    found = dict(source.read(indices))
    if config.data.binarize:
        bits = found["image"] >> 7  # 128 and above: 1, others 0
        found["image"] = np.multiply(bits, 255, out=bits)
    return found
