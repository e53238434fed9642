"""Writes the codes of a split, to which a prior over codes can be fitted.

Every device encodes the same number of images at a time, with a program that contains no
collective. So the codes are bitwise the same for any number of devices and processes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from pipeline import datasets, models
from pipeline.display import terminal
from pipeline.mesh import agreement, compiling, sharding
from pipeline.outputs import array_file, code_files
from pipeline.runtime import errors, throttle
from pipeline.training import batching, evaluation, setup, step

SPLITS = ("train", "heldout")
ROWS = 64  # images a device encodes at a time
REPORT_SECONDS = 5.0
WAIT_SECONDS = 3600  # limit for the other processes, whose data or devices may be slower


def model_of(config: Any, example: Any) -> Any:
    """Returns the run's model without values; its `quantizer` and `grid` describe the codes.

    Raises:
        InputError: the model has no codes.
    """
    model = models.abstract(config, example)
    if not hasattr(model, "quantizer"):
        raise errors.InputError(
            f"--tokens: the run's model {config.model.name!r} has no codes: use the --workdir of "
            "a run of vq_vae"
        )
    return model


def write(ready: setup.Setup, state: step.TrainState, *, split: str, folder: Path) -> Path:
    """Writes the codes of a split; each process writes a contiguous range of its rows.

    Rows are in the split's own order. `tokens-<split>.json` says what the files hold. It appears
    last, when all files are complete. The files of an earlier call for this split are removed
    first.

    Args:
        ready: of the run, on all devices of all processes; its data need not be open.
        state: as restored on these devices.
        split: "train" or "heldout".
        folder: for the files; all processes share it.

    Returns:
        The path of the JSON file.

    Raises:
        InputError: a model without codes, more processes than examples, or a folder that is not
            shared.
        OSError: the files cannot be written.
    """
    # Mistakes in the input are found before any file is removed.
    config, example, mesh = ready.given, ready.example, ready.mesh
    model = model_of(ready.config, example)
    source = getattr(datasets.load(config), split)
    process, processes = jax.process_index(), jax.process_count()
    if len(source) < processes:
        raise errors.InputError(
            f"--num_processes={processes} exceeds the {len(source)} examples of --tokens={split}"
        )
    # Every process knows all shards, so process 0 can describe them without a message.
    num_codes, shape = model.quantizer.num_codes, (*model.grid, *model.quantizer.shape)
    arrays = code_files.rows(example, shape, num_codes=num_codes)
    shards = code_files.shards(split, len(source), processes, arrays)
    # The first barrier keeps the removal from deleting new files of a faster process.
    description = folder / f"tokens-{split}.json"
    if process == 0:
        code_files.remove(description)
    agreement.wait_patiently("tokens removed", seconds=WAIT_SECONDS)
    size = ROWS * len(mesh.local_devices)
    encode = _encoder(ready, state)
    batches = _batches(source, config, shards[process], size, encode)
    _write_shard(shards[process], arrays, batches, folder)
    # The second barrier keeps the description from appearing before the last shard.
    agreement.wait_patiently("tokens written", seconds=WAIT_SECONDS)
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

    Rounding depends on array shapes, and the last bit can decide between two close codes. So every
    device always encodes exactly ROWS images; a short batch repeats its last image.
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
    """Yields the shard's rows, `size` at a time, with `tokens` in place of `image`."""
    before = None
    for first in range(shard.first, shard.stop, size):
        batch = batching.read(source, np.arange(first, min(first + size, shard.stop)), config)
        batch["tokens"] = encode(batch.pop("image"))
        # Codes are fetched one batch later, so the next batch is read while devices encode this.
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
            written[name] = stack.enter_context(array_file.ArrayFile(path, shape, row.dtype))
        began, report = time.perf_counter(), throttle.Throttle(REPORT_SECONDS)
        for batch in batches:
            for name, file in written.items():
                file.append(batch[name])
            done += len(batch["mask"])
            if report.due() or done == num:
                rate = done / (time.perf_counter() - began)
                progress.update(done, metrics={"images_per_second": rate})
