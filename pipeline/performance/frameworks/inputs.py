"""The command that times input alone: prepared shards beside other readers of the same images.

Every reader yields shuffled batches, in as many threads or processes as there are cores, and the
readers run in turn. The pixels of `prepared` are compared with the memory-mapped copy that
`image_folder` makes. Its JPEGs are compared with the decoder alone, and with PyTorch's DataLoader,
WebDataset and Grain's ArrayRecord source, which decode with Pillow. Those that are not installed
are left out.
"""

import contextlib
import importlib.util
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.performance.frameworks import inputs_peers
from pipeline.performance.frameworks.inputs_peers import AHEAD, THREADS, Batches
from pipeline.runtime import command_line, exit_codes, flags

COMMAND = command_line.Command(
    "pipeline.performance.frameworks.inputs",
    "Times how fast batches of images are read: prepared shards beside other readers.",
    (
        flags.Flag(
            "source", "FOLDER", "JPEGs of one size, in folders of classes", example="PHOTOS"
        ),
        flags.integer("image_size", "pixels a side of the JPEGs", 256, least=1),
        flags.integer("small_size", "pixels a side of images stored as pixels", 64, least=1),
        flags.integer("batch_size", "images of a batch", 128, least=1),
        flags.integer("batches", "batches of a round", 32, least=1),
        flags.integer("rounds", "rounds, in each of which every reader runs once", 9, least=1),
    ),
    ("--source=PHOTOS", "--source=PHOTOS --rounds=3 --batches=8"),
    instead="--source=FOLDER",
)
FAST = 16  # rounds of images stored as pixels have so many times more batches


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv` and returns absl's values.

    Raises:
        InputError: an unknown flag, or a value that cannot work.
    """
    return COMMAND.parse(arguments)


def ours(name: str, path: Path, side: int, values: Any, *, ahead: int = AHEAD) -> Batches:
    """Returns the batches of a data set as training reads them, placed on the devices."""
    from configs import beta_vae
    from pipeline import datasets
    from pipeline.mesh import sharding
    from pipeline.training import batching

    config = beta_vae.get_config(name)
    config.data.path, config.data.image_size = str(path), side
    config.batch_size, config.data.num_threads = values.batch_size, THREADS
    config.data.prefetch_batches = ahead
    mesh = sharding.make_mesh(config.mesh)
    return batching.ahead(datasets.load(config).train, config, mesh, first_step=0)


def decoder(paths: list[str], side: int, values: Any) -> Batches:
    """Returns batches of files that are in memory already: only decoding takes time."""
    from pipeline.datasets import _image_decoder

    to = _image_decoder.Format(side, side, 3)
    contents = [Path(path).read_bytes() for path in paths[: 8 * values.batch_size]]
    endless = itertools.cycle(contents)
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            batch = [next(endless) for _ in range(values.batch_size)]
            yield list(pool.map(lambda content: _image_decoder.decode(content, to), batch))


def measure(values: Any) -> dict[str, dict[str, Any]]:
    """Returns {kind of storage: {reader: images per second, and its time over prepared's}}."""
    from pipeline.datasets import _image_layout

    source = flags.path(values.source)
    part = next(iter(_image_layout.read(source).parts.values()))
    paths = [str(source / name) for name in part.names]
    with tempfile.TemporaryDirectory(prefix="inputs-") as made:
        folder = Path(made)
        for kind, side in (("pixels", values.small_size), ("jpeg", values.image_size)):
            arguments = [f"--source={source}", f"--out={folder / kind}", f"--encoding={kind}"]
            command = [sys.executable, "-m", "pipeline.prepare", *arguments]
            subprocess.run([*command, f"--image_size={side}"], check=True)
        small = {
            "prepared": ours("prepared", folder / "pixels", values.small_size, values, ahead=FAST),
            "image_folder's copy": ours(
                "image_folder", source, values.small_size, values, ahead=FAST
            ),
        }
        large = {
            "prepared": ours("prepared", folder / "jpeg", values.image_size, values),
            "the decoder alone": decoder(paths, values.image_size, values),
            "Grain, ArrayRecord": inputs_peers.grain_source(folder / "jpeg", values),
        }
        if importlib.util.find_spec("torch"):
            large["PyTorch's DataLoader"] = inputs_peers.data_loader(
                inputs_peers.Files(paths), values, shuffle=True
            )
            if importlib.util.find_spec("webdataset"):
                (folder / "tars").mkdir()
                large["WebDataset"] = inputs_peers.web_dataset(paths, folder / "tars", values)
        return {
            f"pixels, {values.small_size}²": _rounds(small, values, factor=FAST),
            f"JPEG, {values.image_size}²": _rounds(large, values, factor=1),
        }


def _rounds(readers: dict[str, Batches], values: Any, *, factor: int) -> dict[str, Any]:
    from pipeline.performance import timing

    num = factor * values.batches
    with contextlib.ExitStack() as ended:
        for reader in readers.values():
            if close := getattr(reader, "close", None):
                ended.callback(close)
        reads = {name: _reader(batches, num) for name, batches in readers.items()}
        rounds = timing.in_turn(reads, rounds=values.rounds)
    images = num * values.batch_size
    return {
        name: (images / timing.median(seconds), timing.ratio(rounds, name, "prepared"))
        for name, seconds in rounds.items()
    }


def _reader(batches: Batches, num: int) -> Callable[[], None]:
    import jax

    def read() -> None:
        for _ in range(num):
            jax.block_until_ready(next(batches))

    return read


def main() -> int:
    """Reads the flags, measures, and shows a table."""
    return exit_codes.of(_command)


def _command() -> None:
    from pipeline.display import terminal
    from pipeline.runtime import processor

    values, screen = parse(sys.argv), terminal.Terminal()
    screen.note(f"{processor.name()}, {THREADS} cores")
    for kind, found in measure(values).items():
        rows = [["reader", "images/s", "its time over prepared's"]]
        rows += [[name, f"{speed:,.0f}", str(ratio)] for name, (speed, ratio) in found.items()]
        screen.columns(kind, rows)


if __name__ == "__main__":
    exit_codes.leave(main())
