"""Memory-mapped images through PyTorch's DataLoader: shuffled, batched, in worker processes."""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import data


class Images(data.Dataset):
    """Images [H, W, C] uint8 of a .npy file, which each worker process opens itself."""

    def __init__(self, path: Path):
        """Keeps only the path and the length, because workers receive a copy of this object."""
        self._path, self._num = path, len(np.load(path, mmap_mode="r"))
        self._images: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._num

    def __getitem__(self, index: int) -> torch.Tensor:
        """Returns a copy of one image."""
        if self._images is None:
            self._images = np.load(self._path, mmap_mode="r")
        return torch.from_numpy(self._images[index].copy())


@contextlib.contextmanager
def batches(path: Path, config: Any) -> Iterator[Iterator[torch.Tensor]]:
    """Yields an endless iterator over batches [B, H, W, C] uint8; its workers end with the block.

    There are as many workers as the config has `data.num_threads`, and they read
    `data.prefetch_batches` ahead. They are spawned, because JAX's threads do not survive a fork.
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
        yield read  # closing it releases the loader, and so ends the workers
