"""Data sets of Hugging Face's `datasets`: saved to disk, or fetched by their name on the hub."""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets import _paths
from pipeline.datasets.shards import sources
from pipeline.datasets.shards.sources import parts, tables
from pipeline.runtime import errors

SAVED = ("dataset_dict.json", "state.json")  # one of these lies in a folder of `save_to_disk`


class HuggingFace(tables.Library):
    """The splits of a data set, which `datasets` reads."""

    def rows(self, part: str, first: int, stop: int) -> Iterator[sources.Row]:
        """Yields the images with their label and factors."""
        library = importlib.import_module("datasets")
        table = _load(self.given, "--source")
        table = table[self.splits[part]] if self.splits[part] else table
        if isinstance(table.features[self.columns.image], library.Image):
            table = table.cast_column(self.columns.image, library.Image(decode=False))
        table = table.select_columns(self.columns.names)
        for k, row in enumerate(table.select(range(first, stop)), first):
            name = f"{self.splits[part] or 'row'} {k}"
            content, reason = _content(row[self.columns.image])
            yield sources.Row(name, content, self.columns.row(row), reason)


def opened(given: str) -> HuggingFace:
    """Opens a data set and reads its columns.

    Args:
        given: the folder of `save_to_disk`; or a name on the hub, with a configuration after a
            colon if it needs one.

    Raises:
        InputError: the library is missing, there is no such data set, or it has no images.
    """
    shown = f"hf:{given}"
    loaded = _load(given, shown)
    if isinstance(loaded, Mapping):
        splits = parts.of_splits({name: one.num_rows for name, one in loaded.items()}, shown)
        tables_by_part = {part: loaded[name] for part, name in splits.items()}
    else:
        splits, tables_by_part = {"all": ""}, {"all": loaded}
    found = [_columns(table.features, shown) for table in tables_by_part.values()]
    if any(one != found[0] for one in found):
        raise errors.InputError(f"{shown} has splits with different columns: make them alike")
    sizes = {part: table.num_rows for part, table in tables_by_part.items()}
    return HuggingFace(given, splits, sizes, found[0])


def is_saved(path: Path) -> bool:
    """Says whether `save_to_disk` made this folder."""
    return any((path / name).is_file() for name in SAVED)


def _load(given: str, shown: str) -> Any:
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise errors.InputError(
            f"{shown} needs the package datasets: pip install 'vae-pipeline[hf]', or make setup "
            "EXTRAS=hf"
        ) from None
    library.disable_progress_bars()
    path = _paths.expanded(given)
    try:
        if path.is_dir() and is_saved(path):
            return library.load_from_disk(str(path))
        name, _, configuration = given.partition(":")
        return library.load_dataset(name, configuration or None)
    except Exception as error:  # the library, and those below it, raise many kinds
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise errors.InputError(f"{shown} cannot be opened: {text}") from error


def _columns(features: Mapping[str, Any], shown: str) -> tables.Columns:
    library = importlib.import_module("datasets")
    arrays = (library.Array2D, library.Array3D)
    images = [name for name, one in features.items() if isinstance(one, (library.Image, *arrays))]
    classes = {n: tuple(one.names) for n, one in features.items()
               if isinstance(one, library.ClassLabel)}  # fmt: skip
    types = {name: getattr(one, "dtype", "") for name, one in features.items()
             if isinstance(one, library.Value)}  # fmt: skip
    switches = [name for name, dtype in types.items() if dtype == "bool"]
    numbers = [name for name, dtype in types.items() if "int" in dtype]
    return tables.columns(images, classes, switches, numbers, shown)


def _content(value: Any) -> tuple[bytes | np.ndarray, str]:
    """Returns a file's bytes or an array, and why it cannot be read."""
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return value["bytes"], ""
        try:
            return Path(value["path"]).read_bytes(), ""
        except (OSError, TypeError) as error:
            return b"", getattr(error, "strerror", None) or "no content"
    if value is None:
        return b"", "no content"
    return sources.pixels(value)
