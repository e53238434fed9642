"""Memory-mapped images by PyTorch's DataLoader: shuffled, in worker processes, batch by batch."""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import data


class Images(data.Dataset):
    """Images [H, W, C] uint8 of a .npy file, which each worker opens for itself."""

    def __init__(self, path: Path):
        """Notes where it lies; opens nothing that a worker would inherit."""
        self._path, self._num = path, len(np.load(path, mmap_mode="r"))
        self._images: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._num

    def __getitem__(self, index: int) -> torch.Tensor:
        """Returns a copy of one."""
        if self._images is None:
            self._images = np.load(self._path, mmap_mode="r")
        return torch.from_numpy(self._images[index].copy())


@contextlib.contextmanager
def batches(path: Path, config: Any) -> Iterator[Iterator[torch.Tensor]]:
    """Gives an endless iterator over batches [B, H, W, C]; its workers end with the block.

    As many workers as the config's `data.num_threads`, and as many batches ahead. They are spawned:
    JAX's threads don't survive a fork.
    """
    workers = config.data.num_threads
    loader = data.DataLoader(
        Images(path),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        prefetch_factor=max(1, config.data.prefetch_batches // workers),
        persistent_workers=True,
        multiprocessing_context="spawn",
    )

    def endless() -> Generator[torch.Tensor]:
        while True:
            yield from loader

    with contextlib.closing(endless()) as read:
        yield read  # closed, it lets the loader go, and with it the workers
