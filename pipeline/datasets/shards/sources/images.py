"""Images in a folder or zip, in the layout and order of `datasets.image_folder`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline import datasets
from pipeline.datasets import _image_files, _image_index, _image_layout, _paths
from pipeline.datasets.shards import sources


class Images(NamedTuple):
    """The images of a folder or zip."""

    path: Path
    layout: _image_layout.Layout
    shape: None = None

    @property
    def parts(self) -> Mapping[str, int]:
        """The numbers of images by part."""
        return {name: len(part.names) for name, part in self.layout.parts.items()}

    @property
    def entries(self) -> Mapping[str, datasets.Classes]:
        """The folders are the classes."""
        names = [_paths.shown(name) for name in self.layout.classes]
        return {"label": datasets.label(len(names), names)} if names else {}

    @property
    def identity(self) -> str:
        """A digest of the names."""
        names = (f"{part}\0{name}" for part in self.layout.parts
                 for name in self.layout.parts[part].names)  # fmt: skip
        return datasets.digest("\0".join(names).encode(errors="surrogateescape"))

    def rows(self, part: str, first: int, stop: int) -> Iterator[sources.Row]:
        """Yields the images with their class."""
        names, label = self.layout.parts[part]
        with _image_files.opened(self.path) as files:
            for row in range(first, stop):
                content, reason = _image_index.read(files, names[row])
                entries = {} if label is None else {"label": int(label[row])}
                yield sources.Row(names[row], content, entries, reason)


def opened(text: str) -> Images:
    """Lists a folder or zip of images.

    Raises:
        InputError: there is none, or its layout is another one.
    """
    path = _paths.expanded(text)
    return Images(path, _image_layout.read(path))
