"""The files that hold a split's codes: a description in JSON, and arrays cut into shards.

A description exists only if all files that it names exist, even if a process stops half-way. So it
is written last and removed first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.runtime import errors, files
from pipeline.runtime.storage import faults

Rows = Mapping[str, jax.ShapeDtypeStruct]  # shape and dtype of one row, by the array's name


class Shard(NamedTuple):
    """The rows of a split that one process writes, and the files that hold them."""

    first: int
    stop: int  # the last row + 1
    files: dict[str, str]  # file names, by the array's name


def rows(example: Mapping[str, Any], shape: tuple[int, ...], *, num_codes: int) -> Rows:
    """Returns the arrays to write: the codes as `tokens`, and the data set's entries but `image`.

    Args:
        example: abstract example of the data set.
        shape: of an image's codes, [h, w] or [h, w, Q].
        num_codes: K; the codes' dtype is the smallest of uint8, uint16 and int32 that holds K − 1.
    """
    dtype = np.uint8 if num_codes <= 2**8 else np.uint16 if num_codes <= 2**16 else np.int32
    entries = {name: entry for name, entry in example.items() if name != "image"}
    return {
        "tokens": jax.ShapeDtypeStruct(shape, dtype),
        **{name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in entries.items()},
    }


def shards(split: str, num_examples: int, processes: int, arrays: Rows) -> list[Shard]:
    """Returns the shards of all processes: contiguous ranges of nearly equal length."""
    bounds = [num_examples * i // processes for i in range(processes + 1)]
    cut = []
    for i in range(processes):
        number = f"{i:05d}-of-{processes:05d}"
        files = {name: f"tokens-{split}-{name}-{number}.npy" for name in arrays if name != "tokens"}
        files["tokens"] = f"tokens-{split}-{number}.npy"
        cut.append(Shard(bounds[i], bounds[i + 1], files))
    return cut


def describe(
    path: Path, arrays: Rows, cut: list[Shard], example: Mapping[str, Any], about: dict[str, Any]
) -> None:
    """Writes the description atomically: `about`, and what the files hold.

    Args:
        path: of the description; the files lie beside it.
        arrays: result of `rows`.
        cut: result of `shards`.
        example: abstract example of the data set.
        about: entries that describe the run and the codes.

    Raises:
        InputError: a file of another process is not here.
        OSError: the description cannot be written.
    """
    for name in (name for shard in cut for name in shard.files.values()):
        if not (path.parent / name).is_file():
            raise errors.InputError(
                f"{path.parent} lacks {name}, which another process has written: use a --workdir "
                "or --out that all processes share"
            )
    listed: dict[str, dict[str, Any]] = {}
    for name, row in arrays.items():
        listed[name] = {"shape": row.shape, "dtype": np.dtype(row.dtype).name}
        if isinstance(entry := example.get(name), datasets.Classes):
            listed[name]["num_classes"] = entry.num_classes
            if named := datasets.class_names({name: entry}):
                listed[name]["class_names"] = named
    whole = about | {
        "num_examples": cut[-1].stop,
        "dtype": listed["tokens"]["dtype"],
        "arrays": listed,
        "shards": [shard._asdict() for shard in cut],
    }
    files.write(path, json.dumps(whole, indent=2) + "\n")


def remove(path: Path) -> None:
    """Removes the description `path` and then all arrays of its split, for any number of shards."""
    with faults.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        for pattern in (f"{path.stem}-*-of-*.npy", f".{path.stem}*.tmp"):
            for left in path.parent.glob(pattern):
                left.unlink()
