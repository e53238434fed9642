"""Writes what a model says of every example of a split: codes, or the moments of a posterior.

Every device encodes the same number of images at a time, with a program that contains no
collective (`row_chunks`). So the arrays are bitwise the same for any number of devices and
processes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.display import terminal
from pipeline.mesh import agreement
from pipeline.outputs import array_file, encoded_files, row_chunks
from pipeline.runtime import errors, throttle
from pipeline.training import batching, setup

REPORT_SECONDS = 5.0
WAIT_SECONDS = 3600  # limit for the other processes, whose data or devices may be slower


class Kind(NamedTuple):
    """What is written, and how it is computed."""

    name: str  # of the files and of the flag: codes, tokens or latents
    main: str  # the array whose files have no name of their own; "": none
    rows: encoded_files.Rows  # shape and dtype of an example's encodings, by their names
    # (params, {"image": [n, H, W, C], conditions}) → the encodings [n, ...] by their names
    encode: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
    about: Mapping[str, Any]  # of the encodings, for the description


def write(
    ready: setup.Setup,
    params: Any,
    kind: Kind,
    *,
    split: str,
    about: Mapping[str, Any],
    folder: Path,
) -> Path:
    """Writes the encodings of a split; each process writes a contiguous range of its rows.

    Rows are in the split's own order. `<kind>-<split>.json` says what the files hold. It appears
    last, when all files are complete. The files of an earlier call for this split are removed
    first.

    Args:
        ready: of the run, on all devices of all processes, with open data.
        params: what `kind.encode` takes, whole on these devices.
        kind: of the encodings.
        split: "train" or "heldout".
        about: further entries of the description.
        folder: for the files; all processes share it.

    Returns:
        The path of the JSON file.

    Raises:
        InputError: more processes than examples, or a folder that is not shared.
        OSError: the files cannot be written.
    """
    # Mistakes in the input are found before any file is removed.
    config, example, stem = ready.given, ready.example, f"{kind.name}-{split}"
    source = getattr(ready.opened, split)
    process, processes = jax.process_index(), jax.process_count()
    if len(source) < processes:
        raise errors.InputError(
            f"--num_processes={processes} exceeds the {len(source)} examples of "
            f"--{kind.name}={split}"
        )
    # Every process knows all shards, so process 0 can describe them without a message.
    arrays = encoded_files.rows(example, kind.rows)
    shards = encoded_files.shards(stem, len(source), processes, arrays, main=kind.main)
    # The first barrier keeps the removal from deleting new files of a faster process.
    description = folder / f"{stem}.json"
    if process == 0:
        encoded_files.remove(description)
    agreement.wait_patiently(f"{stem} removed", seconds=WAIT_SECONDS)
    held = jax.tree.map(lambda leaf: leaf.addressable_data(0), params)
    program = row_chunks.Program(kind.encode, held, ready.mesh.local_devices)
    names = ("image", *config.model.get("conditions", ()))
    batches = _batches(source, config, shards[process], names, program)
    _write_shard(shards[process], arrays, batches, folder)
    # The second barrier keeps the description from appearing before the last shard.
    agreement.wait_patiently(f"{stem} written", seconds=WAIT_SECONDS)
    if process == 0:
        encoded_files.describe(
            description, arrays, shards, example, {"split": split, **kind.about, **about}
        )
    return description


def _batches(
    source: datasets.Source,
    config: Any,
    shard: encoded_files.Shard,
    names: tuple[str, ...],
    program: row_chunks.Program,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the shard's rows, a chunk at a time, with encodings in place of `image`."""
    before = None
    for first in range(shard.first, shard.stop, program.size):
        stop = min(first + program.size, shard.stop)
        batch = batching.read(source, np.arange(first, stop), config)
        started = program.start({name: batch[name] for name in names})
        del batch["image"]
        # Encodings are fetched one batch later, so the next batch is read while devices encode.
        if before is not None:
            yield _fetched(*before)
        before = batch, started
    if before is not None:
        yield _fetched(*before)


def _fetched(batch: dict[str, Any], started: Mapping[str, Any]) -> dict[str, np.ndarray]:
    num = len(batch["mask"])
    return batch | {name: np.asarray(values)[:num] for name, values in started.items()}


def _write_shard(
    shard: encoded_files.Shard,
    arrays: encoded_files.Rows,
    batches: Iterator[dict[str, np.ndarray]],
    folder: Path,
) -> None:
    num, done = shard.stop - shard.first, 0
    screen = terminal.Terminal(active=jax.process_index() == 0)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(screen.progress(num, noun="image"))
        written = {}
        for name, row in arrays.items():
            path, shape = folder / shard.files[name], (num, *row.shape)
            written[name] = stack.enter_context(array_file.ArrayFile(path, shape, row.dtype))
        began, report = time.perf_counter(), throttle.Throttle(REPORT_SECONDS)
        for batch in batches:
            for name, file in written.items():
                file.append(batch[name])
            done += len(batch["mask"])
            if report.due() or done == num:
                rate = done / (time.perf_counter() - began)
                progress.update(done, metrics={"images_per_second": rate})
