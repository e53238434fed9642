"""The files that hold an encoded split: a description in JSON, and arrays cut into shards.

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


def rows(example: Mapping[str, Any], computed: Rows) -> Rows:
    """Returns the arrays to write: the computed ones, and the data set's entries but `image`.

    Args:
        example: abstract example of the data set.
        computed: rows of what the model says of an example.

    Raises:
        InputError: the data set has an entry of the same name as a computed array.
    """
    entries = {name: entry for name, entry in example.items() if name != "image"}
    if both := sorted(entries.keys() & computed.keys()):
        raise errors.InputError(
            f"the data set has an entry {both[0]!r}, which is the name of an encoding: give the "
            "entry another name in its `spec`"
        )
    kept = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in entries.items()}
    return {**computed, **kept}


def shards(
    stem: str, num_examples: int, processes: int, arrays: Rows, *, main: str = ""
) -> list[Shard]:
    """Returns the shards of all processes: contiguous ranges of nearly equal length.

    Args:
        stem: how the names of files begin, such as "codes-train".
        num_examples: of the split.
        processes: how many write.
        arrays: result of `rows`.
        main: the array whose files have no name of their own after the stem; "": none.
    """
    bounds = [num_examples * i // processes for i in range(processes + 1)]
    cut = []
    for i in range(processes):
        number = f"{i:05d}-of-{processes:05d}"
        named = {name: f"{stem}-{name}-{number}.npy" for name in arrays if name != main}
        if main:
            named[main] = f"{stem}-{number}.npy"
        cut.append(Shard(bounds[i], bounds[i + 1], named))
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
        about: entries that describe the run and the encodings.

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
