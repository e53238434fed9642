"""Data sets of TensorFlow Datasets, read as random-access data sources, without TensorFlow."""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.datasets import _paths
from pipeline.datasets.shards import sources
from pipeline.datasets.shards.sources import parts, tables
from pipeline.runtime import errors


@dataclasses.dataclass(frozen=True)
class Tfds(tables.Library):
    """The splits of a data set, which `tensorflow_datasets` reads."""

    inside: Mapping[str, str]  # the feature that lies around a column, if there is one

    def rows(self, part: str, first: int, stop: int) -> Iterator[sources.Row]:
        """Yields the images with their label and factors."""
        library, builder = _builder(self.given)
        image = self.columns.image
        source = builder.as_data_source(
            split=self.splits[part], decoders={image: library.decode.SkipDecoding()}
        )
        for k in range(first, stop):
            row = source[k]
            flat = {name: row[self.inside[name]][name] if name in self.inside else row[name]
                    for name in self.columns.names}  # fmt: skip
            content = flat[image]
            reason = ""
            if isinstance(content, np.ndarray):
                content, reason = sources.pixels(content)
            yield sources.Row(f"{self.splits[part]} {k}", content, self.columns.row(flat), reason)


def opened(given: str) -> Tfds:
    """Opens a data set, and fetches it if it isn't there.

    Args:
        given: the name of a data set, such as celeb_a or mnist:3.*.*; or the folder of one that is
            prepared.

    Raises:
        InputError: the library is missing, there is no such data set, or it has no images.
    """
    shown = f"tfds:{given}"
    library, builder = _builder(given)
    features = library.features
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    chosen = parts.of_splits(sizes, shown)
    flat: dict[str, Any] = dict(builder.info.features.items())
    inside: dict[str, str] = {}
    for name, feature in list(flat.items()):
        if isinstance(feature, features.FeaturesDict):  # such as CelebA's attributes
            del flat[name]
            flat |= dict(feature.items())
            inside |= dict.fromkeys(feature, name)
    images = [name for name, one in flat.items() if isinstance(one, features.Image)]
    labels = {n: one for n, one in flat.items() if isinstance(one, features.ClassLabel)}
    classes = {name: tuple(one.names or map(str, range(one.num_classes)))
               for name, one in labels.items()}  # fmt: skip
    plain = {name: np.dtype(one.np_dtype).kind for name, one in flat.items()
             if name not in labels and getattr(one, "shape", None) == ()
             and getattr(one, "np_dtype", None) is not None
             and not isinstance(one, features.Text)}  # fmt: skip
    switches = [name for name, kind in plain.items() if kind == "b"]
    numbers = [name for name, kind in plain.items() if kind in "iu"]
    columns = tables.columns(images, classes, switches, numbers, shown)
    rows = {part: sizes[name] for part, name in chosen.items()}
    return Tfds(given, chosen, rows, columns, inside)


def _builder(given: str) -> tuple[Any, Any]:
    try:
        library = importlib.import_module("tensorflow_datasets")
    except ImportError:
        raise errors.InputError(
            f"tfds:{given} needs the package tensorflow-datasets: pip install 'vae-pipeline[tfds]',"
            " or make setup EXTRAS=tfds"
        ) from None
    path = _paths.expanded(given)
    try:
        if path.is_dir():
            return library, library.builder_from_directory(str(path))
        builder = library.builder(given, file_format="array_record")
        if not builder.is_prepared():
            builder.download_and_prepare()
        return library, builder
    except Exception as error:  # the library, and those below it, raise many kinds
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise errors.InputError(f"tfds:{given} cannot be opened: {text}") from error
