"""Which kind of source a text names, told by its prefix, its suffix or what a folder holds."""

from pathlib import Path

from pipeline.datasets import _paths
from pipeline.datasets.shards import sources
from pipeline.datasets.shards.sources import (
    arrays,
    hugging_face,
    images,
    parquet,
    tars,
    tensorflow_datasets,
)
from pipeline.runtime import errors
from pipeline.runtime.storage import places

WANTED = "a folder or zip of images, an npy, npz, tar or parquet file, or hf:NAME or tfds:NAME"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def opened(text: str) -> sources.Source:
    """Returns the source that a text names: a path, hf:NAME or tfds:NAME.

    Raises:
        InputError: there is no such source, it cannot be prepared, or a library is missing.
    """
    kind, _, name = text.partition(":")
    if kind in ("hf", "tfds") and not name.startswith("//"):
        if not name:
            raise errors.InputError(f"--source={text} needs a name after the colon")
        return (hugging_face if kind == "hf" else tensorflow_datasets).opened(name)
    if places.is_bucket(text):
        raise errors.InputError(
            f"--source={text} lies in a bucket: copy it to a folder first, or mount the bucket"
        )
    path = _paths.expanded(text)
    if text.lower().endswith(PACKED):
        raise errors.InputError(f"{path} is compressed: unpack it to a plain .tar")
    match path.suffix.lower():
        case ".npy" | ".npz":
            return arrays.opened(text)
        case ".tar":
            return tars.opened([path], text)
        case ".parquet":
            return parquet.opened([path], text)
    if _paths.kind(path, WANTED) == "folder":
        if hugging_face.is_saved(path):
            return hugging_face.opened(text)
        for suffix, module in ((".tar", tars), (".parquet", parquet)):
            if found := _files(path, suffix):
                return module.opened(found, text)
    return images.opened(text)


def _files(folder: Path, suffix: str) -> list[Path]:
    return [path for path in folder.iterdir()
            if path.name.lower().endswith(suffix) and not path.name.startswith(".")]  # fmt: skip
