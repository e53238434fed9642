"""`example.json` of a run: shapes and types of an example, for commands that need no data.

So images can be drawn from a run whose data have moved, or lie on another machine.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pipeline import datasets
from pipeline.runtime import errors, files

NAME = "example.json"


def write(example: dict[str, Any], workdir: Path) -> None:
    """Writes the abstract example of a data set, atomically."""
    files.write(workdir / NAME, json.dumps(plain(example), indent=2, sort_keys=True) + "\n")


def plain(example: dict[str, Any]) -> dict[str, Any]:
    """Returns an abstract example in the types of JSON, as the file has it."""
    return {name: _plain(entry) for name, entry in example.items()}


def from_plain(entries: dict[str, Any]) -> dict[str, Any]:
    """Returns the abstract example that `plain` described.

    Raises:
        InputError: it is no such description.
    """
    try:
        return {name: _entry(**entry) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise errors.InputError(
            f"the description of an example is damaged ({reason}): put a whole copy there"
        ) from None


def of_run(config: Any, workdir: Path, *, saved_first: bool = False) -> dict[str, Any]:
    """Returns the abstract example of a run's data set; if the data are missing, the saved one.

    Args:
        config: of the run.
        workdir: of the run.
        saved_first: looks for the data only if the saved one is missing or damaged.

    Raises:
        InputError: the data are missing, and the run has kept no description of them.
    """
    if saved_first and (saved := _saved(workdir)) is not None:
        return saved
    try:
        return datasets.example_spec(config)
    except (errors.InputError, OSError):
        if (saved := _saved(workdir)) is None:
            raise
        return saved


def _saved(workdir: Path) -> dict[str, Any] | None:
    """Returns the saved example; None if the run is older than this file, or it is damaged."""
    try:
        return from_plain(json.loads((workdir / NAME).read_text()))
    except (OSError, ValueError):
        return None


def _plain(entry: Any) -> dict[str, Any]:
    found = {"shape": list(entry.shape), "dtype": np.dtype(entry.dtype).name}
    known = isinstance(entry, datasets.Classes | datasets.Pixels | datasets.Codes)
    return dataclasses.asdict(entry) | found if known else found


def _entry(**plain: Any) -> Any:
    if "decoder" in plain:
        return datasets.Codes(**plain)
    if "low" in plain:
        return datasets.Pixels(**plain)
    if "num_classes" in plain:
        return datasets.Classes.from_plain(plain)
    shape, dtype = plain.pop("shape"), plain.pop("dtype")
    if plain:
        raise ValueError(f"an entry has the field {next(iter(plain))!r}")
    return jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
