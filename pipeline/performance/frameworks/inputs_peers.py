"""Batches of images as other libraries read them: PyTorch's DataLoader, WebDataset and Grain.

All of them decode with Pillow, as their own examples do.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

THREADS = os.cpu_count() or 1
AHEAD = 4  # batches that are read ahead, little beside the batches of a round

Batches = Iterator[Any]


class Files:
    """Image files by number, as PyTorch's DataLoader expects it."""

    def __init__(self, paths: list[str]):
        """Keeps the paths; each worker process receives a copy."""
        self._paths = paths

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns the pixels of one file."""
        with open(self._paths[index], "rb") as file:
            return pixels(file.read())


def pixels(content: bytes) -> np.ndarray:
    """Returns what Pillow decodes, [H, W, 3] uint8, as other frameworks' examples do it."""
    from PIL import Image

    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def data_loader(dataset: Any, values: Any, **options: Any) -> Batches:
    """Returns the batches of PyTorch's DataLoader, with a worker process for each core."""
    from torch.utils import data

    loader = data.DataLoader(
        dataset, batch_size=values.batch_size, num_workers=THREADS, drop_last=True,
        prefetch_factor=max(1, AHEAD // THREADS), persistent_workers=True,
        multiprocessing_context="spawn", **options,
    )  # fmt: skip
    while True:
        yield from loader


def web_dataset(paths: list[str], folder: Path, values: Any) -> Batches:
    """Writes tars, one or more for each worker, and returns WebDataset's batches of them."""
    import webdataset

    for number in range(2 * THREADS):
        with tarfile.open(folder / f"{number:03d}.tar", "w") as archive:
            for k, path in enumerate(paths[number :: 2 * THREADS]):
                archive.add(path, f"{k:06d}.jpg")
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    source = webdataset.WebDataset(tars, shardshuffle=2 * THREADS, resampled=True)
    images = source.shuffle(1000).map(_of_tar)
    return data_loader(images, values)


def _of_tar(example: dict[str, Any]) -> np.ndarray:
    return pixels(example["jpg"])


def grain_source(folder: Path, values: Any) -> Batches:
    """Returns Grain's batches of the same shards, which it reads example by example."""
    import grain

    source = grain.sources.ArrayRecordDataSource(
        [str(path) for path in sorted(folder.glob("*.array_record"))]
    )
    images = grain.MapDataset.source(source).shuffle(seed=0).repeat(None).map(pixels)
    return iter(images.batch(values.batch_size).to_iter_dataset(grain.ReadOptions(THREADS, AHEAD)))
