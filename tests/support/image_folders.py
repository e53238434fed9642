"""Folders and zips of small pictures, and what is read of them."""

import io
import zipfile

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from pipeline.datasets import image_folder
from pipeline.runtime import errors


def config(path, **changes):
    fields = {"image_size": 8, "resize": 0, "channels": 3, "max_corrupt_files": 0}
    return ConfigDict({"path": str(path)} | fields | changes)


def picture(value=0, suffix="png", size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(file, "JPEG" if suffix == "jpg" else suffix)
    return file.getvalue()


def folder(root, names, **contents):
    """Writes pictures whose red is their index in `names`, and the files in `contents`."""
    files = {name: picture(value) for value, name in enumerate(names)}
    for name, content in (files | contents).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(root):
    """Makes a zip of the folder, beside it."""
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(root))
    return path


def reds(source):
    """Returns the red values of the pictures, in their order."""
    return source.read(np.arange(len(source)))["image"][:, 4, 4, 0].tolist()


def refusal(path, **changes):
    """Returns the one error line that refuses to load."""
    image_folder.layout.cache_clear()
    with pytest.raises(errors.InputError) as raised:
        image_folder.load(config(path, **changes))
    assert "\n" not in str(raised.value)
    return str(raised.value)
