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
    entries = {name: plain(entry) for name, entry in example.items()}
    files.write(workdir / NAME, json.dumps(entries, indent=2, sort_keys=True) + "\n")


def of_run(config: Any, workdir: Path) -> dict[str, Any]:
    """Returns the abstract example of a run's data set; if the data are missing, the saved one.

    Raises:
        InputError: the data are missing, and the run has kept no description of them.
    """
    try:
        return datasets.example_spec(config)
    except (errors.InputError, OSError):
        try:
            saved = json.loads((workdir / NAME).read_text())
            return {name: _entry(**entry) for name, entry in saved.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # the run is older than this file, or the file is damaged
        raise


def plain(entry: Any) -> dict[str, Any]:
    """Returns an abstract entry as values of JSON."""
    found = {"shape": list(entry.shape), "dtype": np.dtype(entry.dtype).name}
    known = isinstance(entry, datasets.Classes | datasets.Pixels | datasets.Codes)
    return dataclasses.asdict(entry) | found if known else found


def _entry(*, shape: list[int], dtype: str, **classes: Any) -> Any:
    if "decoder" in classes:
        return datasets.Codes(tuple(shape), dtype, **classes)
    if "low" in classes:
        return datasets.Pixels(tuple(shape), dtype, classes["low"], classes["high"])
    if classes:
        return datasets.Classes(shape=tuple(shape), **{k: _tuple(v) for k, v in classes.items()})
    return jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
