"""MNIST (LeCun, Cortes, Burges): the four idx files of a folder, gzipped or not."""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import errors

FILES = {"train": "train", "heldout": "t10k"}


class Digits(NamedTuple):
    """Images [N, 28, 28, 1] uint8 and labels [N] int32, in memory."""

    image: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        """Returns N."""
        return len(self.label)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the chosen examples."""
        return {"image": self.image[indices], "label": self.label[indices]}


def spec(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns one abstract example."""
    del config
    return {
        "image": jax.ShapeDtypeStruct((28, 28, 1), np.uint8),
        "label": jax.ShapeDtypeStruct((), np.int32),
    }


def load(config: Any) -> dict[str, Digits]:
    """Reads the published split from `config.path`.

    Raises:
        InputError: no path, or a file that is missing or damaged.
    """
    if not config.path:
        raise errors.InputError(
            "config.data.path is empty: give the folder with MNIST's four idx files, "
            "--config.data.path=FOLDER"
        )
    return {split: _digits(Path(config.path).expanduser(), name) for split, name in FILES.items()}


def _digits(folder: Path, name: str) -> Digits:
    image = _read_idx(folder, f"{name}-images-idx3-ubyte", magic=2051)
    label = _read_idx(folder, f"{name}-labels-idx1-ubyte", magic=2049).astype(np.int32)
    if image.shape[1:] != (28, 28) or len(image) != len(label) or label.max(initial=0) > 9:
        raise errors.InputError(
            f"{folder}: the {name} files hold images {image.shape} and {len(label)} labels up to "
            f"{label.max(initial=0)}, not MNIST's: fetch them anew"
        )
    return Digits(image[..., None], label)


def _read_idx(folder: Path, name: str, *, magic: int) -> np.ndarray:
    """Reads one idx file: magic, sizes (big-endian uint32), then bytes."""
    found = [path for suffix in ("", ".gz") if (path := folder / f"{name}{suffix}").is_file()]
    if not found:
        raise errors.InputError(
            f"{folder / name}[.gz] is missing: --config.data.path must be the folder with MNIST's "
            "four idx files"
        )
    path = found[0]
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, ValueError) as error:
        raise errors.InputError(f"{path} is damaged ({error}): fetch it anew") from None
    num_dims = magic % 256
    header = np.frombuffer(raw[: 4 + 4 * num_dims], ">u4") if len(raw) >= 16 else np.zeros(1)
    body = raw[4 + 4 * num_dims :]
    if header[0] != magic or len(body) != np.prod(header[1:], dtype=np.int64):
        raise errors.InputError(
            f"{path} is truncated or no idx file ({len(raw)} bytes, magic {int(header[0])} where "
            f"{magic} is due): fetch it anew"
        )
    return np.frombuffer(body, np.uint8).reshape(tuple(int(size) for size in header[1:]))
