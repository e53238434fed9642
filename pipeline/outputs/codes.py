"""The codes of a data set, which a prior over codes can be fitted to.

The decision: every device encodes the same number of images at a time, by a program that knows of
no other device, so that the codes are the same bits whatever devices and processes made them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import multihost

from pipeline import datasets, models
from pipeline.display import terminal
from pipeline.mesh import compiling, sharding
from pipeline.outputs import code_files
from pipeline.runtime import errors, files
from pipeline.training import batching, evaluation, setup, step

SPLITS = ("train", "heldout")
ROWS = 64  # images a device encodes at a time
REPORT_SECONDS = 5.0
WAIT_SECONDS = 3600  # for the other processes, whose data or devices may be slower


def model_of(config: Any, example: Any) -> Any:
    """Returns the run's model without values: `quantizer` and `grid` describe its codes.

    Raises:
        InputError: it has no codes.
    """
    model = models.abstract(config, example)
    if not hasattr(model, "quantizer"):
        raise errors.InputError(
            f"--tokens: the run's model {config.model.name!r} has no codes: give the --workdir of "
            "a run of vq_vae"
        )
    return model


def write(ready: setup.Setup, state: step.TrainState, *, split: str, folder: Path) -> Path:
    """Writes the codes of a split, each process those of a contiguous range of its rows.

    Rows are in the split's own order. `tokens-<split>.json` says what the files hold; it appears
    last, when all of them are whole. What an earlier call left of this split is removed first.

    Args:
        ready: of the run, on all devices of all processes; its data need not be open.
        state: as restored on these devices.
        split: "train" or "heldout".
        folder: one that all processes share.

    Returns:
        The path of the JSON file.

    Raises:
        InputError: a model without codes, more processes than examples, or a folder not shared.
        OSError: the files cannot be written.
    """
    config, example, mesh = ready.given, ready.example, ready.mesh
    model = model_of(ready.config, example)
    source = getattr(datasets.load(config), split)
    process, processes = jax.process_index(), jax.process_count()
    if len(source) < processes:
        raise errors.InputError(
            f"--num_processes={processes} exceeds the {len(source)} examples of --tokens={split}"
        )
    num_codes, shape = model.quantizer.num_codes, (*model.grid, *model.quantizer.shape)
    arrays = code_files.rows(example, shape, num_codes=num_codes)
    shards = code_files.shards(split, len(source), processes, arrays)
    description = folder / f"tokens-{split}.json"
    if process == 0:
        code_files.remove(description)
    _wait_for_all("removed")
    size = ROWS * len(mesh.local_devices)
    encode = _encoder(ready, state)
    batches = _batches(source, config, shards[process], size, encode)
    _write_shard(shards[process], arrays, batches, folder)
    _wait_for_all("written")
    if process == 0:
        about = {
            "step": int(state.step),
            "split": split,
            "num_codes": num_codes,
            "grid": model.grid,
            "quantizer": config.model.quantizer.to_dict(),
            "data": {"name": config.data.name, "image_shape": example["image"].shape},
            "seed": config.seed,
        }
        code_files.describe(description, arrays, shards, example, about)
    return description


def _encoder(ready: setup.Setup, state: step.TrainState) -> Callable:
    """Returns images [n, H, W, C] uint8 → codes [ROWS·devices, h, w] on this process's devices.

    How a sum is taken hangs on the shapes, and of two near codes its last bit decides: so every
    device always gets ROWS images, the last one again and again where there are fewer.
    """
    local = sharding.make_mesh({"data": -1}, devices=ready.mesh.local_devices)
    held = jax.tree.map(lambda leaf: leaf.addressable_data(0), state)
    held = jax.device_put(held, sharding.replicated(local))
    encode = compiling.jit(
        jax.shard_map(
            evaluation.method(ready.config, ready.example, "encode"),
            mesh=local,
            in_specs=(P(), P(local.axis_names)),
            out_specs=P(local.axis_names),
            check_vma=False,
        ),
        local,
    )

    def codes(image):
        missing = ROWS * local.size - len(image)
        image = np.pad(image, [(0, missing), (0, 0), (0, 0), (0, 0)], mode="edge")
        return encode(held, jax.device_put(image, sharding.batch_sharded(local)))

    return codes


def _batches(
    source: datasets.Source, config: Any, shard: code_files.Shard, size: int, encode: Callable
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the shard's rows, `size` at a time: `tokens` in the place of `image`."""
    before = None
    for first in range(shard.first, shard.stop, size):
        batch = batching.read(source, np.arange(first, min(first + size, shard.stop)), config)
        batch["tokens"] = encode(batch.pop("image"))
        # One late: while the devices encode a batch, the next one is read.
        if before is not None:
            yield _fetched(before)
        before = batch
    if before is not None:
        yield _fetched(before)


def _fetched(batch: dict[str, Any]) -> dict[str, np.ndarray]:
    return batch | {"tokens": np.asarray(batch["tokens"])[: len(batch["mask"])]}


def _write_shard(
    shard: code_files.Shard,
    arrays: code_files.Rows,
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
            written[name] = stack.enter_context(files.ArrayFile(path, shape, row.dtype))
        began = reported = time.perf_counter()
        for batch in batches:
            for name, file in written.items():
                file.append(batch[name])
            done += len(batch["mask"])
            if (now := time.perf_counter()) - reported > REPORT_SECONDS or done == num:
                progress.update(done, metrics={"images_per_second": done / (now - began)})
                reported = now


def _wait_for_all(key: str) -> None:
    """Returns when every process is here; a collective operation would give up sooner."""
    multihost.get_barrier_sync_fn()(key=f"tokens {key}", timeout_ms=1000 * WAIT_SECONDS)
