"""`dataset.json`: what a prepared data set holds. It is written last, so with it a set is whole.

Example i of a part is row i % per_shard of shard i // per_shard, of the rows that are not corrupt.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import datasets
from pipeline.runtime import errors, files

NAME = "dataset.json"
FORMAT = "vae-pipeline shards"
VERSION = 1  # raise it when an older version would misread what this one writes
ENCODINGS = ("pixels", "jpeg", "png")
SUFFIXES = {"pixels": "npy", "jpeg": "array_record", "png": "array_record"}


class File(NamedTuple):
    """A file of the data set, and what it must hold."""

    file: str
    bytes: int
    digest: str  # SHA-256, in hexadecimal digits


class Part(NamedTuple):
    """A part of the data set: `train` and `heldout`, or `all`."""

    rows: int  # in its shards, corrupt ones included
    per_shard: int  # rows of every shard but the last
    names: str  # digest of the names of its images, in their order
    shards: tuple[File, ...]
    columns: dict[str, File]  # npy files by entry: label, factors, and the checksums of the rows
    corrupt: dict[int, tuple[str, str]]  # rows that are left out: name, and why


class Manifest(NamedTuple):
    """What `dataset.json` says."""

    encoding: str  # one of ENCODINGS
    shape: tuple[int, int, int]  # H, W, C of an image
    short_side: int  # pixels of the short side before the centre was cut; 0: nothing was scaled
    entries: dict[str, datasets.Classes]  # label and factors, if there are any
    source: str  # digest of what was prepared, and how
    parts: dict[str, Part]

    @property
    def files(self) -> list[File]:
        """All files but `dataset.json`."""
        parts = self.parts.values()
        return [file for part in parts for file in (*part.shards, *part.columns.values())]


def write(folder: Path, manifest: Manifest) -> None:
    """Writes `dataset.json`, with a digest of what it says."""
    said = {
        "format": FORMAT,
        "version": VERSION,
        "encoding": manifest.encoding,
        "example": {
            "image": {"shape": list(manifest.shape), "dtype": "uint8", "range": [0, 255]},
            **{name: _classes_to_json(entry) for name, entry in manifest.entries.items()},
        },
        "short_side": manifest.short_side,
        "source": manifest.source,
        "parts": {name: _part_to_json(part) for name, part in manifest.parts.items()},
    }
    text = json.dumps(said | {"digest": _digest(said)}, indent=1, ensure_ascii=False)
    files.write(folder / NAME, f"{text}\n".encode(errors="surrogateescape"))


def read(folder: Path, *, hint: str = "") -> Manifest:
    """Reads `dataset.json`.

    Args:
        folder: of the prepared data set.
        hint: ends the error of a missing file.

    Raises:
        InputError: there is none, it is damaged, or a newer version wrote it.
    """
    path = folder / NAME
    try:
        said = json.loads(path.read_bytes().decode(errors="surrogateescape"))
    except (FileNotFoundError, NotADirectoryError):
        raise errors.InputError(
            f"{folder} holds no prepared data set: {NAME} is missing{hint}"
        ) from None
    except (ValueError, RecursionError, IsADirectoryError):
        raise _damaged(path) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise errors.InputError(f"{path} does not describe a prepared data set{hint}")
    if not isinstance(said.get("version"), int) or said["version"] > VERSION:
        raise errors.InputError(
            f"{folder} was prepared by a newer version (format {said.get('version')}, known up to "
            f"{VERSION}): update this program, or prepare the data again with it"
        )
    if said.pop("digest", None) != _digest(said):
        raise _damaged(path)
    image = said["example"].pop("image")
    if (image["dtype"], image["range"]) != ("uint8", [0, 255]):
        raise errors.InputError(
            f"{folder} has images of {image['dtype']}, which only a newer version reads: update "
            "this program"
        )
    return Manifest(
        said["encoding"],
        tuple(image["shape"]),
        said["short_side"],
        {name: _classes_of_json(entry) for name, entry in said["example"].items()},
        said["source"],
        {name: _part_of_json(part) for name, part in said["parts"].items()},
    )


def digest(content: bytes) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def checked(folder: Path, file: File) -> bytes:
    """Returns the content of a file of the data set.

    Raises:
        InputError: it is missing or altered.
    """
    try:
        content = (folder / file.file).read_bytes()
    except FileNotFoundError:
        raise missing(folder, file) from None
    if len(content) != file.bytes or digest(content) != file.digest:
        raise altered(folder, file)
    return content


def column(folder: Path, file: File) -> np.ndarray:
    """Returns the array of a column's file; raises an InputError as `checked` does."""
    return np.load(io.BytesIO(checked(folder, file)), allow_pickle=False)


def missing(folder: Path, file: File) -> errors.InputError:
    """Returns the error of a file that is missing."""
    return errors.InputError(f"{folder / file.file} is missing: {AGAIN} makes what is missing")


def altered(folder: Path, file: File) -> errors.InputError:
    """Returns the error of a file with another content than it had."""
    return errors.InputError(
        f"{folder / file.file} is damaged or was altered: remove it, then {AGAIN} makes it again"
    )


AGAIN = "the same pipeline.prepare command"


def _damaged(path: Path) -> errors.InputError:
    return errors.InputError(f"{path} is damaged: remove it, then {AGAIN} makes it again")


def _digest(said: dict[str, Any]) -> str:
    return digest(json.dumps(said, sort_keys=True).encode())


def _part_to_json(part: Part) -> dict[str, Any]:
    return part._asdict() | {
        "shards": [shard._asdict() for shard in part.shards],
        "columns": {name: file._asdict() for name, file in part.columns.items()},
        "corrupt": {str(row): list(found) for row, found in part.corrupt.items()},
    }


def _part_of_json(said: dict[str, Any]) -> Part:
    return Part(**said | {
        "shards": tuple(File(**shard) for shard in said["shards"]),
        "columns": {name: File(**file) for name, file in said["columns"].items()},
        "corrupt": {int(row): (found[0], found[1]) for row, found in said["corrupt"].items()},
    })  # fmt: skip


def _classes_to_json(entry: datasets.Classes) -> dict[str, Any]:
    return {
        "num_classes": list(entry.num_classes),
        "columns": list(entry.names),
        "class_names": [list(names) for names in entry.class_names],
    }


def _classes_of_json(said: dict[str, Any]) -> datasets.Classes:
    sizes, columns = tuple(said["num_classes"]), tuple(said["columns"])
    named = tuple(tuple(names) for names in said["class_names"])
    shape = (len(sizes),) if columns else ()
    return datasets.Classes(sizes, shape, names=columns, class_names=named)
