"""MNIST (LeCun, Cortes, Burges): the four idx files of a folder; without a path, a download.

The files are downloaded once, into the cache. The page yann.lecun.com/exdb/mnist describes the
format: a magic number, sizes, then bytes.
"""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import _paths
from pipeline.runtime import cache, download, errors

PREFIXES = {"train": "train", "heldout": "t10k"}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# MD5 of the uncompressed files; the mirrors serve them gzipped.
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MAX_BYTES = 64 * 2**20  # the most that is read of a mirror's answer; the largest file has 45 MiB
DAMAGE = (OSError, EOFError, ValueError, zlib.error)  # errors that a damaged gzip file may raise


class Digits(NamedTuple):
    """The digits of a split, in memory."""

    image: np.ndarray  # [N, 28, 28, 1] uint8
    label: np.ndarray  # [N] int32

    def __len__(self) -> int:
        """Returns N."""
        return len(self.label)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, 28, 28, 1] uint8 and `label` [n] int32."""
        return {"image": self.image[indices], "label": self.label[indices]}

    def fingerprint(self) -> dict[str, str]:
        """Returns what these examples are, see `datasets.Source`."""
        return {
            "examples": str(len(self)),
            "labels": datasets.digest(self.label.astype("<i4").tobytes()),
            "pixels": datasets.digest(zlib.crc32(self.image.data).to_bytes(4)),
        }


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example."""
    del config
    return {
        "image": jax.ShapeDtypeStruct((28, 28, 1), np.uint8),
        "label": datasets.label(10, tuple("0123456789")),
    }


def load(config: Any) -> dict[str, Digits]:
    """Reads the published splits from `config.path`, or downloads them if the path is empty.

    Raises:
        InputError: a file is missing or damaged, or no mirror serves it.
        OSError: a downloaded file cannot be written to the cache folder.
    """
    if config.path:
        folder = _paths.expanded(config.path)
        if _paths.kind(folder, "the folder with MNIST's four idx files") != "folder":
            raise errors.InputError(
                f"config.data.path={config.path!r} is no folder: give the one with MNIST's four "
                "idx files"
            )
    else:
        folder = cache.folder() / "mnist"
        for name in CHECKSUMS:
            if not _is_whole(folder / name):
                _fetch(name, folder)
    return {split: _read_split(folder, prefix) for split, prefix in PREFIXES.items()}


def _is_whole(path: Path) -> bool:
    """Says whether a downloaded file is there and as it was published; that takes 0.1 s for all."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == CHECKSUMS[path.name]


def _read_split(folder: Path, prefix: str) -> Digits:
    images = _find(folder, f"{prefix}-images-idx3-ubyte")
    labels = _find(folder, f"{prefix}-labels-idx1-ubyte")
    image, label = _read_idx(images, num_dims=3), _read_idx(labels, num_dims=1)
    if image.shape[1:] != (28, 28) or not len(image):
        raise errors.InputError(
            f"{images} holds images {list(image.shape)}, not [N, 28, 28]: give MNIST's files"
        )
    if len(image) != len(label):
        raise errors.InputError(
            f"{images} holds {len(image)} images and {labels} {len(label)} labels: give files that "
            "belong together"
        )
    if label.max() > 9:
        raise errors.InputError(
            f"{labels} holds the label {label.max()}, not only 0 to 9: give MNIST's files"
        )
    return Digits(image[..., None], label.astype(np.int32))


def _find(folder: Path, name: str) -> Path:
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise errors.InputError(
        f"{folder / name}[.gz] is missing: --config.data.path must be the folder with MNIST's four "
        "idx files"
    )


def _read_idx(path: Path, *, num_dims: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes: magic 0x0800 + dims, big-endian uint32 sizes, bytes."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except DAMAGE as error:
        raise errors.InputError(
            f"{path} cannot be read ({_reason(error)}): remove it and fetch it again"
        ) from error
    header = np.frombuffer(raw[: 4 + 4 * num_dims].ljust(4 + 4 * num_dims, b"\0"), ">u4")
    shape = tuple(int(size) for size in header[1:])
    body = np.frombuffer(raw, np.uint8)[4 + 4 * num_dims :]
    # Python's integers do not overflow, whatever sizes a damaged header has.
    expected = 4 + 4 * num_dims + int(np.prod(np.array(shape, object)))
    if header[0] != 0x0800 + num_dims or len(raw) != expected:
        raise errors.InputError(
            f"{path} is no idx file or damaged (magic {int(header[0])}, {len(raw)} bytes, not "
            f"{0x0800 + num_dims} and {expected}): remove it and fetch it again"
        )
    return body.reshape(shape)


def _fetch(name: str, folder: Path) -> None:
    """Writes one uncompressed file into the folder, from the first mirror that has it intact."""
    try:
        download.fetch(
            folder / name,
            [f"{mirror}{name}.gz" for mirror in MIRRORS],
            md5=CHECKSUMS[name],
            max_bytes=MAX_BYTES,
            gzipped=True,
        )
    except download.Unfetched as error:
        reasons = zip(MIRRORS, error.reasons, strict=True)
        raise errors.InputError(
            f"config.data.path is empty and {name} could not be fetched "
            f"({'; '.join(f'{mirror}: {reason}' for mirror, reason in reasons)}): "
            "pass --config.data.path=FOLDER, the one with MNIST's four idx files"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
