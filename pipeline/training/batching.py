"""Batches of training and of held-out examples, as they lie on the mesh.

The examples of training's global batch k are a pure function of (data seed, k). On any number of
processes and devices, it holds the same examples in the same order. The position in the data is the
step, so there is no iterator state to save.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.mesh import local_programs, sharding
from pipeline.runtime import run_config
from pipeline.training import order, resident

ENDLESS = 2**62  # batches
LARGE_BYTES = 2**22  # of a process's share of a batch, from which each is read and sent by itself

Batch = dict[str, jax.Array]


def ahead(source: datasets.Source, config: Any, mesh: Mesh, *, first_step: int) -> Iterator[Batch]:
    """Returns the global batches from `first_step` on, each cut over the mesh, `mask` all ones.

    Threads read the batches ahead and place them on the devices.

    Raises:
        InputError: `data.resident` is set, and the devices cannot hold the examples.
    """
    own_rows = indices(
        len(source),
        seed=run_config.data_seed(config),
        batch_size=config.batch_size,
        first_step=first_step,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    # A thread reads several batches at once. A step evicts code and tables from the CPU's caches,
    # so a batch that is read on its own takes more than twice the time.
    num, threads = config.data.prefetch_batches, config.data.num_threads
    large = _is_large(config)
    at_once = 1 if large else max(1, num // threads)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=num // at_once)
    groups = own_rows.batch(at_once, batch_fn=list).map(_placing(source, config, mesh, large=large))
    return itertools.chain.from_iterable(groups.to_iter_dataset(options))


def indices(
    num_examples: int, *, seed: int, batch_size: int, first_step: int, process: int, processes: int
) -> grain.MapDataset:
    """Returns this process's rows of every global batch from `first_step` on, as int64 [rows].

    Each epoch has its own order. A global batch is cut into one run of rows for each process, so
    that the rows of a process are contiguous in it.
    """
    rows = batch_size // processes
    first = first_step * batch_size + process * rows
    shuffled = order.Shuffled(num_examples, seed=seed, first=first, num=rows, stride=batch_size)
    return grain.MapDataset.range(ENDLESS).map(shuffled.rows)


def _placing(
    source: datasets.Source, config: Any, mesh: Mesh, *, large: bool
) -> Callable[[list[np.ndarray]], list[Batch]]:
    """Returns a function that reads batches and places them: a list of int64 [n] → batches."""
    rows = config.batch_size // jax.process_count()
    mask = sharding.to_global({"mask": np.ones(rows, np.float32)}, mesh)  # one for all batches

    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
        return examples(source, indices, config)

    kept = config.data.resident
    if large and not kept:  # sent as they are: a copy of a large batch costs more
        return lambda group: [sharding.to_global(read(rows), mesh) | mask for rows in group]
    batches = resident.place(read, len(source), mesh) if kept else _sent(read, mesh)
    return lambda group: [batch | mask for batch in batches(group)]


def _is_large(config: Any) -> bool:
    """Says whether this process's share of a batch is large."""
    return example_bytes(config) * config.batch_size // jax.process_count() >= LARGE_BYTES


def check_memory(source: datasets.Source, config: Any, mesh: Mesh) -> None:
    """Raises an InputError if the examples are to be resident and cannot; reads none."""
    if config.data.resident:
        resident.check(len(source) * example_bytes(config), mesh)


def example_bytes(config: Any) -> int:
    """Returns the bytes of one example as the data set gives it."""
    example = datasets.example_spec(config).values()
    return sum(np.dtype(entry.dtype).itemsize * math.prod(entry.shape) for entry in example)


def _sent(
    read: Callable[[np.ndarray], dict[str, np.ndarray]], mesh: Mesh
) -> Callable[[list[np.ndarray]], Sequence[Batch]]:
    """Returns a function that sends several batches as one and splits them on the devices.

    It takes and returns the same as the result of `resident.place`.
    """
    apart = local_programs.program(_apart, mesh)

    def batches(rows: list[np.ndarray]) -> Sequence[Batch]:
        together = read(np.concatenate(rows))
        shape = len(rows), len(rows[0])
        return apart({name: a.reshape(*shape, *a.shape[1:]) for name, a in together.items()})

    return batches


def _apart(together: dict[str, jax.Array]) -> list[Batch]:
    num = len(next(iter(together.values())))
    return [{name: array[k] for name, array in together.items()} for k in range(num)]


def check_batch(config: Any, mesh: Mesh) -> None:
    """Raises an InputError if the config's training batch cannot be cut over the mesh."""
    sharding.check_batch(
        config.batch_size,
        mesh=mesh,
        accumulation_steps=config.accumulation_steps,
        deterministic_shards=config.deterministic_shards,
    )


def check_eval_batch(config: Any, mesh: Mesh) -> None:
    """Raises an InputError if `config.eval_batch_size` examples cannot be cut over the mesh."""
    sharding.check_batch(
        config.eval_batch_size,
        mesh=mesh,
        accumulation_steps=1,
        deterministic_shards=config.deterministic_shards,
        field="eval_batch_size",
    )


def heldout_batches(
    source: datasets.Source, config: Any, mesh: Mesh, *, num: int | None = None
) -> Iterator[tuple[int, dict[str, jax.Array]]]:
    """Yields (first position, batch) over the first `num` held-out examples, in order.

    `num` defaults to `config.eval_examples`; 0 stands for all. A batch has `config.eval_batch_size`
    examples, or `config.batch_size` if that is 0. The last batch is padded and masked, so that
    every process takes the same number of steps.
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


def first_images(source: datasets.Source, config: Any, num: int) -> dict[str, np.ndarray]:
    """Returns the first `num` held-out examples, the same on every process."""
    return read(source, np.arange(min(num, len(source))), config)


def abstract_batch(config: Any, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes, dtypes and shardings of a global batch."""
    spec = {**datasets.example_spec(config), "mask": jax.ShapeDtypeStruct((), np.float32)}
    return {
        name: jax.ShapeDtypeStruct(
            (config.batch_size, *leaf.shape), leaf.dtype, sharding=sharding.batch_sharded(mesh)
        )
        for name, leaf in spec.items()
    }


def read(source: datasets.Source, indices: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Returns the examples `indices` [n] as a model sees them, and `mask` [n] float32, all ones."""
    return examples(source, indices, config) | {"mask": np.ones(indices.shape, np.float32)}


def examples(source: datasets.Source, indices: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Returns the examples `indices` [n] without a mask."""
    found = dict(source.read(indices))
    if config.data.binarize:
        # The top bit fills the byte, so 128 and above become 255, others 0, in one pass.
        found["image"] = (found["image"].view(np.int8) >> 7).view(np.uint8)
    return found
