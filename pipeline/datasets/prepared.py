"""A data set that `python -m pipeline.prepare` made: shards in a folder that all hosts share.

`dataset.json` says what they hold, so nothing is listed or decoded at the start. `data.copy` says
whether the shards are first copied to this machine.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets.shards import (
    checks,
    copying,
    finishing,
    listing,
    manifest,
    pixels,
    records,
)
from pipeline.runtime import errors, registry
from pipeline.runtime.storage import places

COPY = ("auto", "always", "never")


class Prepared(NamedTuple):
    """The n examples of a part."""

    rows: pixels.Pixels | records.Records  # of the part, corrupt ones included
    chosen: np.ndarray  # [n], the rows that are no corrupt images
    entries: dict[str, np.ndarray]  # [n] or [n, columns] int32
    about: dict[str, str]  # the fingerprint

    def __len__(self) -> int:
        """Returns n."""
        return len(self.chosen)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, H, W, C] uint8, and `label` [n] or `factors` [n, columns] int32."""
        image = self.rows.read(self.chosen[indices])
        return {"image": image} | {name: array[indices] for name, array in self.entries.items()}

    def fingerprint(self) -> dict[str, str]:
        """Returns what these examples are, see `datasets.Source`."""
        return self.about


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example; reads only `dataset.json`.

    Raises:
        InputError: there is no prepared data set, or a newer version made it.
    """
    whole = manifest_of(config.path)
    return {"image": jax.ShapeDtypeStruct(whole.shape, np.uint8), **whole.entries}


def load(config: Any) -> dict[str, Prepared]:
    """Opens the parts, in the order in which they were prepared, without the corrupt images.

    Raises:
        InputError: as in `spec`; or a shard is missing or altered, or the disk is too small for a
            copy.
        OSError: a copy cannot be written.
    """
    folder, whole = _folder(config.path), manifest_of(config.path)
    registry.check(config.copy, COPY, field="data.copy")
    place = folder
    if config.copy == "always" or (config.copy == "auto" and places.is_bucket(folder)):
        place = copying.copied(folder, whole)
    else:
        listing.check_there(folder, whole)
    return {name: _part(folder, place, whole, name) for name in whole.parts}


def _part(folder: Path, place: Path, whole: manifest.Manifest, name: str) -> Prepared:
    part = whole.parts[name]

    def path(number: int, again: bool) -> Path:
        file = part.shards[number]
        if again and place != folder:
            return copying.again(folder, place, file)
        return place / file.file

    columns = {key: manifest.column(folder, file) for key, file in part.columns.items()}
    sums = columns.pop(finishing.SUMS)
    chosen = np.delete(np.arange(part.rows), sorted(part.corrupt))
    entries = {key: array[chosen].astype(np.int32) for key, array in columns.items()}
    check = checks.Checks(part, sums, path)
    kind = pixels.Pixels if whole.encoding == "pixels" else records.Records
    about = _about(whole, part, len(chosen))
    return Prepared(kind(check, whole.shape), chosen, entries, about)


def _about(whole: manifest.Manifest, part: manifest.Part, num: int) -> dict[str, str]:
    labels = "".join(file.digest for key, file in part.columns.items() if key != finishing.SUMS)
    classes = [name for entry in whole.entries.values() for names in entry.class_names
               for name in names]  # fmt: skip
    return {
        "examples": str(num),
        "size": "×".join(map(str, whole.shape)),
        "classes": ", ".join(classes),
        "names": part.names,
        "labels": datasets.digest(labels.encode()),
        "pixels": datasets.digest(part.columns[finishing.SUMS].digest.encode()),
    }


@functools.lru_cache(maxsize=1)
def manifest_of(given: str) -> manifest.Manifest:
    """Reads `dataset.json` once per process: `spec` and `load` must find the same."""
    return manifest.read(_folder(given), hint=": make one with python -m pipeline.prepare")


def _folder(given: str) -> Path:
    if not given:
        raise errors.InputError(
            "config.data.path is empty: give the folder of the prepared data, "
            "--config.data.path=SHARDS"
        )
    return places.of(given, name="config.data.path")
