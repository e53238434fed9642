"""Only the input pipeline, up to the devices: the config's data, and memory-mapped pixels.

Memory-mapped pixels show what any data set can reach that is stored decoded. Two others read the
same file in turn with it. Grain reads it as it is commonly used: it reads single examples and
batches them afterwards. If PyTorch is installed, its DataLoader uses as many worker processes.
"""

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from pipeline.mesh import sharding
from pipeline.performance import timing
from pipeline.performance.bench import Bench
from pipeline.training import batching

LEAST = 20_000  # images in a round, at least
SHAPE = (16_384, 64, 64, 1)  # uint8, memory-mapped: 64 MiB


class Mapped(NamedTuple):
    """Memory-mapped images [N, H, W, C] uint8."""

    image: np.ndarray

    def __len__(self) -> int:
        """Returns N."""
        return len(self.image)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, H, W, C] uint8."""
        return {"image": self.image[indices]}


def measure(bench: Bench) -> dict[str, Any]:
    """Returns images per second, and the time of other readers over ours, as a ratio."""
    config, mesh = bench.ready.config, bench.ready.mesh
    streamed = config.copy_and_resolve_references().unlock()
    streamed.data.resident = False
    # A round reads far more than threads read ahead between rounds, so buffers don't count.
    num = max(8 * config.data.prefetch_batches, LEAST // config.batch_size)
    with tempfile.TemporaryDirectory(prefix="mapped-") as folder, contextlib.ExitStack() as ended:
        path = Path(folder) / "images.npy"
        mapped = _mapped(path)
        # All readers are open at once, so that their rounds can run in turn.
        inputs = {
            "config": batching.ahead(bench.ready.opened.train, config, mesh, first_step=0),
            "mapped": batching.ahead(mapped, streamed, mesh, first_step=0),
            "examples": _by_example(mapped, bench),
        }
        if importlib.util.find_spec("torch"):
            from pipeline.performance.sections import data_loader

            inputs["loader"] = ended.enter_context(data_loader.batches(path, config))
        reads = {name: _reader(batches, num) for name, batches in inputs.items()}
        rounds = timing.in_turn(reads, rounds=bench.options.rounds)
    speed = {name: num * config.batch_size / timing.median(each) for name, each in rounds.items()}
    figures = {
        "images/s": speed["config"],
        "memory-mapped 64 × 64 bytes, images/s": speed["mapped"],
        "the same by Grain, example by example, images/s": speed["examples"],
        "its time over ours": timing.ratio(rounds, "examples", "mapped"),
    }
    if "loader" not in speed:
        return figures | {"the same by PyTorch's DataLoader": "PyTorch is not installed"}
    return figures | {
        "the same by PyTorch's DataLoader, images/s": speed["loader"],
        "the DataLoader's time over ours": timing.ratio(rounds, "loader", "mapped"),
    }


def _mapped(path: Path) -> Mapped:
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    np.save(path, pixels)
    return Mapped(np.load(path, mmap_mode="r"))


def _by_example(mapped: Mapped, bench: Bench) -> Iterator[jax.Array]:
    config, where = bench.ready.config, sharding.batch_sharded(bench.ready.mesh)
    examples = grain.MapDataset.range(len(mapped)).shuffle(seed=0).repeat(None)
    batches = examples.map(lambda index: mapped.image[index]).batch(config.batch_size)
    options = grain.ReadOptions(config.data.num_threads, config.data.prefetch_batches)
    for batch in batches.to_iter_dataset(options):
        yield jax.device_put(batch, where)


def _reader(batches: Iterator[Any], num: int) -> Callable[[], None]:
    def read() -> None:
        for _ in range(num):
            jax.block_until_ready(next(batches))  # returns PyTorch's tensors at once

    return read
