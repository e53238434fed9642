"""MNIST (LeCun, Cortes, Burges): the four idx files of a folder, gzipped or not."""

import gzip
import hashlib
import os
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import errors

FILES = {"train": "train", "heldout": "t10k"}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MD5 = {  # of the uncompressed files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


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
    """Reads the published split from `config.path`, or downloads it into the user's cache.

    Raises:
        InputError: a file that is missing or damaged, or no path and no network.
    """
    folder = Path(config.path).expanduser() if config.path else _downloaded()
    return {split: _digits(folder, name) for split, name in FILES.items()}


def _downloaded() -> Path:
    """Returns the cache folder with all four files; whole ones are not fetched again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "vae-pipeline" / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    for name, checksum in MD5.items():
        if not (folder / name).exists():
            body = _fetch(f"{name}.gz", checksum)
            # A name of our own, then a rename: other processes may fetch the same file.
            temporary = folder / f".{name}.{os.getpid()}"
            try:
                temporary.write_bytes(body)
                os.replace(temporary, folder / name)
            finally:
                temporary.unlink(missing_ok=True)
    return folder


def _fetch(name: str, checksum: str) -> bytes:
    """Returns the uncompressed file from the first mirror that gives it whole."""
    reasons = []
    for mirror in MIRRORS:
        try:
            with urllib.request.urlopen(mirror + name, timeout=30) as response:
                body = gzip.decompress(response.read())
        except (EOFError, OSError) as error:
            reasons.append(f"{mirror}: {error}")
            continue
        if hashlib.md5(body).hexdigest() == checksum:
            return body
        reasons.append(f"{mirror}: wrong checksum")
    raise errors.InputError(
        f"MNIST's {name} could not be downloaded ({'; '.join(reasons)}): give the folder with the "
        "four idx files, --config.data.path=FOLDER"
    )


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
    size = 4 + 4 * num_dims
    header = np.frombuffer(raw[:size], ">u4") if len(raw) >= size else np.zeros(1)
    body = raw[size:]
    if header[0] != magic or len(body) != np.prod(header[1:], dtype=np.int64):
        raise errors.InputError(
            f"{path} is truncated or no idx file ({len(raw)} bytes, magic {int(header[0])} where "
            f"{magic} is due): fetch it anew"
        )
    return np.frombuffer(body, np.uint8).reshape(tuple(int(size) for size in header[1:]))
