"""Decodes images once, into shards in the user's cache, which all later runs map.

They are the shards of `prepare`, so hosts that share the cache folder share the work. Every file is
decoded before training. So every process and every run knows the same corrupt files, and the order
of the examples does not depend on errors while reading.
"""

import errno
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pipeline import datasets
from pipeline.datasets import _checked_rows, _image_decoder, _image_files, _image_index, _paths
from pipeline.datasets._image_layout import Layout
from pipeline.datasets.shards import checks, finishing, manifest, pixels, plan, rebuilding
from pipeline.datasets.shards.sources import images
from pipeline.display import terminal
from pipeline.runtime import cache, errors


class Pictures(NamedTuple):
    """The n examples of a split."""

    pixels: pixels.Pixels  # of the split, corrupt ones included
    rows: np.ndarray  # [n], the row of each example in `pixels`
    sums: np.ndarray  # [n] uint32, the checksums of the rows
    shape: tuple[int, int, int]  # H, W, C
    label: np.ndarray | None  # [n] int32 class indices, if there are classes
    names: Sequence[str]  # [n], of the files
    classes: Sequence[str]

    def __len__(self) -> int:
        """Returns n."""
        return len(self.rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, H, W, C] uint8 and, if there are classes, `label` [n] int32."""
        batch = {"image": self.pixels.read(self.rows[indices])}
        return batch if self.label is None else batch | {"label": self.label[indices]}

    def fingerprint(self) -> dict[str, str]:
        """Returns what these examples are, see `datasets.Source`."""
        label = np.zeros(0, np.int32) if self.label is None else self.label
        return {
            "examples": str(len(self)),
            "size": "×".join(map(str, self.shape)),
            "classes": ", ".join(map(_paths.shown, self.classes)),
            "names": datasets.digest("\0".join(self.names).encode(errors="surrogateescape")),
            "labels": datasets.digest(label.astype("<i4").tobytes()),
            "pixels": datasets.digest(self.sums.tobytes()),
        }


def pictures(
    path: Path, layout: Layout, to: _image_decoder.Format, *, max_corrupt: int
) -> dict[str, Pictures]:
    """Opens the splits of a folder or zip, in the layout's order, without the corrupt images.

    Up to `max_corrupt` files that cannot be decoded only print a warning.

    Raises:
        InputError: more than `max_corrupt` files or all files of a split or of a class in it cannot
            be decoded, or the disk fails.
        OSError: the packed copy cannot be written.
    """
    source = images.Images(path, layout)
    folder, planned, whole = _copy(source, to)
    _check_corrupt(path, whole, max_corrupt)
    found = {}
    for name, part in layout.parts.items():
        made = whole.parts[name]
        rows = np.delete(np.arange(made.rows), sorted(made.corrupt))
        if not rows.size:
            raise errors.InputError(f"{path}: every image of the part {name!r} is corrupt")
        label = None if part.label is None else part.label[rows]
        if label is not None and (lost := set(range(len(layout.classes))) - set(label.tolist())):
            raise errors.InputError(
                f"{path}: every image of the class {layout.classes[min(lost)]!r} is corrupt: "
                "repair them, or move its folder away"
            )
        sums = manifest.column(folder, made.columns[finishing.SUMS])
        place = rebuilding.place(folder, planned, source, made)
        opened = pixels.Pixels(checks.Checks(made, sums, place), whole.shape)
        names = [part.names[row] for row in rows]
        found[name] = Pictures(opened, rows, sums[rows], whole.shape, label, names, layout.classes)
    return found


def _copy(
    source: images.Images, to: _image_decoder.Format
) -> tuple[Path, plan.Plan, manifest.Manifest]:
    """Returns the folder of the decoded copy of these images; makes it if there is none."""
    names = [name for part in source.layout.parts.values() for name in part.names]
    with _image_files.opened(source.path) as files:
        index = _image_index.opened(source.path, files, names)
    key = cache.key(
        _image_decoder.VERSION, to, source.identity, datasets.digest(index.digests.tobytes())
    )
    folder, planned = cache.folder() / f"images-{key}", plan.of_cache(source, to)
    whole = rebuilding.kept(folder, planned)
    if whole is None:
        # One process of each machine works, in threads. Machines share the work by claims.
        with cache.locked(folder.with_name(f"{folder.name}-{socket.gethostname()}.any")):
            whole = rebuilding.kept(folder, planned)
            if whole is None:
                terminal.Terminal().note(
                    f"Decoding {len(names):,} images of {_paths.shown(source.path)}, once, into "
                    f"{_paths.shown(folder)}"
                )
                try:
                    whole = rebuilding.make(folder, planned, source)
                except OSError as error:
                    number = error.errno or errno.EIO
                    raise OSError(
                        number,
                        f"cannot write {folder} ({os.strerror(number)}): make room there, or set "
                        "XDG_CACHE_HOME to a folder that has it",
                    ) from error
    if before := _image_index.replaced(source.path, index, repr(to), folder):
        shutil.rmtree(before, ignore_errors=True)
        _checked_rows.remove(before)  # of an older version, which had one file
    return folder, planned, whole


def _check_corrupt(path: Path, whole: manifest.Manifest, max_corrupt: int) -> None:
    corrupt = [found for part in whole.parts.values() for found in part.corrupt.values()]
    if not corrupt:
        return
    num = sum(part.rows for part in whole.parts.values())
    text = finishing.describe_corrupt(corrupt, num, where=f" in {path}")
    if len(corrupt) > max_corrupt:
        raise errors.InputError(
            f"{text}: repair or remove them, or skip so many with --config.data.max_corrupt_files="
            f"{len(corrupt)} (now {max_corrupt})"
        )
    terminal.Terminal(active=jax.process_index() == 0).warn(f"{text}; they are skipped")
