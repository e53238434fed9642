"""Codes of images, as `python -m pipeline.generate --codes=all` writes them: data of a prior.

`data.path` is a folder with `codes-train.json`, `codes-heldout.json`, the arrays that they name,
and `decoder.safetensors`, the part of the VQ-VAE that decodes. An example has `codes`, what else
the images' data set has (such as `label`), and `distortion` if the VQ-VAE has a likelihood.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline import datasets
from pipeline.datasets import _paths
from pipeline.runtime import errors

SPLITS = ("train", "heldout")
WANTED = "a folder that `python -m pipeline.generate --codes=all` has written"
AGAIN = "write both splits again with `python -m pipeline.generate --codes=all`"


class Rows(NamedTuple):
    """The N examples of a split, in files that stay mapped."""

    first: np.ndarray  # number of the first example of each file, int64 [files]
    arrays: dict[str, list[np.ndarray]]  # by name, one for each file
    num: int

    def __len__(self) -> int:
        """Returns N."""
        return self.num

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each array at the indices [n]."""
        place = np.searchsorted(self.first, indices, side="right") - 1
        found = {}
        for name, files in self.arrays.items():
            found[name] = np.empty((len(indices), *files[0].shape[1:]), files[0].dtype)
            for number in np.unique(place):
                here = place == number
                found[name][here] = files[number][indices[here] - self.first[number]]
        return found


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example; reads descriptions only.

    Raises:
        InputError: a file is missing or damaged, or the two splits do not belong together.
    """
    folder = _folder(config)
    about = _descriptions(folder)["train"]
    path, model = folder / about["decoder"]["file"], {}
    try:
        model = _model(path, path.stat().st_mtime_ns)
        decoder = json.dumps({"config": model["config"], "image": model["example"]["image"]})
        found: dict[str, Any] = {}
        for name, entry in about["arrays"].items():
            shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
            if name == "codes":
                num, width = about["num_codes"], about.get("bin_width")
                found[name] = datasets.Codes(shape, dtype, num, decoder, width)
            elif "num_classes" in entry:
                found[name] = datasets.Classes.from_plain(model["example"][name])
            else:
                found[name] = jax.ShapeDtypeStruct(shape, dtype)
        return found
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path if not model else folder / "codes-train.json", error) from None


def load(config: Any) -> dict[str, Rows]:
    """Maps the files of both splits, and compares them with their descriptions.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    folder = _folder(config)
    example, described = spec(config), _descriptions(folder)
    _check_decoder(folder, described["train"]["decoder"])
    return {split: _rows(folder, about, example) for split, about in described.items()}


def decoder_file(config: Any) -> Path:
    """Returns the path of the decoder; `config` is the section `data`."""
    folder = _folder(config)
    return folder / _descriptions(folder)["train"]["decoder"]["file"]


def _folder(config: Any) -> Path:
    if not config.path:
        raise errors.InputError(f"config.data.path is empty: give {WANTED}, --config.data.path=…")
    folder = _paths.expanded(config.path)
    if _paths.kind(folder, WANTED) != "folder":
        raise errors.InputError(f"config.data.path={config.path} is a file: give {WANTED}")
    return folder


def _descriptions(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what describes each split, after a check that one model has made both."""
    found = {split: _description(folder, split) for split in SPLITS}
    train, heldout = found.values()
    for field in ("decoder", "step", "num_codes", "grid", "arrays", "bin_width"):
        if train.get(field) != heldout.get(field):
            raise errors.InputError(
                f"{folder}: codes-train.json and codes-heldout.json differ in {field!r}, so they "
                f"are of two models or steps: {AGAIN}"
            )
    return found


def _description(folder: Path, split: str) -> dict[str, Any]:
    path = folder / f"codes-{split}.json"
    try:
        about = json.loads(path.read_text())
        # What is missing shows here, in one line.
        about["decoder"]["file"], about["decoder"]["sha256"], about["arrays"]["codes"]["shape"]
        about["num_codes"], about["num_examples"], about["shards"][0]["files"]["codes"]
        return about
    except FileNotFoundError:
        old = folder / f"tokens-{split}.json"
        reason = f"; {old.name} is of --tokens and lacks the decoder" if old.exists() else ""
        raise errors.InputError(f"{path} is missing{reason}: {AGAIN}") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _damaged(path, error) from None


@functools.lru_cache(maxsize=4)
def _model(path: Path, changed: int) -> dict[str, Any]:
    """Returns config and example of the model whose decoder lies in a file; reads its header."""
    del changed  # a part of the key: the file may be written again
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["about"])
    return {"config": about["config"], "example": about["example"]}


def _check_decoder(folder: Path, expected: dict[str, str]) -> None:
    path = folder / expected["file"]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected["sha256"]:
        raise errors.InputError(
            f"{path} is not the decoder of these codes (sha256 {found[:12]}…, not "
            f"{expected['sha256'][:12]}…): {AGAIN}"
        )


def _rows(folder: Path, about: dict[str, Any], example: dict[str, Any]) -> Rows:
    shards = about["shards"]
    arrays = {
        name: [
            _mapped(folder / shard["files"][name], name, shard["stop"] - shard["first"], entry)
            for shard in shards
        ]
        for name, entry in example.items()
    }
    first = np.array([shard["first"] for shard in shards], np.int64)
    return Rows(first, arrays, int(shards[-1]["stop"]))


def _mapped(path: Path, name: str, num: int, entry: Any) -> np.ndarray:
    """Maps an array, and checks its shape, its dtype, and that its numbers are known."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise errors.InputError(f"{path} is missing: {AGAIN}") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    wanted = (num, *entry.shape), np.dtype(entry.dtype)
    if (array.shape, array.dtype) != wanted:
        raise errors.InputError(
            f"{path} has {array.dtype} {list(array.shape)}, and its description says {wanted[1]} "
            f"{list(wanted[0])}: {AGAIN}"
        )
    if name == "codes" and num and not 0 <= array.min() <= array.max() < entry.num_codes:
        raise errors.InputError(
            f"{path} has codes from {array.min()} to {array.max()}, and the VQ-VAE has "
            f"{entry.num_codes}, from 0 on: {AGAIN}"
        )
    known = np.isfinite(array)
    if isinstance(entry, datasets.Classes):
        known = (array >= 0) & (array < np.array(entry.num_classes))
    if not known.all():
        place = np.argwhere(~known)[0]
        raise errors.InputError(
            f"{path} has {array[tuple(place)]} as {name} of row {place[0]}: {AGAIN}"
        )
    return array


def _damaged(path: Path, error: Exception) -> errors.InputError:
    if isinstance(error, FileNotFoundError):
        return errors.InputError(f"{path} is missing: {AGAIN}")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return errors.InputError(f"{path} cannot be read ({type(error).__name__}: {reason}): {AGAIN}")
