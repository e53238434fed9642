"""Decodes images once into an uncompressed file in the user's cache, which all later runs map.

Every file is decoded before training. So every process and every run knows the same corrupt files,
and the order of the examples does not depend on errors while reading.
"""

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from pipeline import datasets
from pipeline.datasets import (
    _checked_rows,
    _image_decoder,
    _image_files,
    _image_index,
    _image_layout,
    _paths,
)
from pipeline.display import terminal
from pipeline.runtime import cache, errors, throttle

REPORT_SECONDS = 5.0
NAMED = 5  # corrupt files that a message names


class Pictures(NamedTuple):
    """The n examples of a split."""

    pixels: _checked_rows.Rows  # [N, H, W, C] uint8, of all splits
    rows: np.ndarray  # [n], the row of each example in `pixels`
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
            "size": "×".join(map(str, self.pixels.shape[1:])),
            "classes": ", ".join(map(_paths.shown, self.classes)),
            "names": datasets.digest("\0".join(self.names).encode(errors="surrogateescape")),
            "labels": datasets.digest(label.astype("<i4").tobytes()),
            "pixels": datasets.digest(self.pixels.sums[self.rows].tobytes()),
        }


def pictures(
    path: Path, layout: _image_layout.Layout, to: _image_decoder.Format, *, max_corrupt: int
) -> dict[str, Pictures]:
    """Opens the splits of a folder or zip, in the layout's order, without the corrupt images.

    Up to `max_corrupt` files that cannot be decoded only print a warning.

    Raises:
        InputError: more than `max_corrupt` files or all files of a split or of a class in it cannot
            be decoded, or the disk fails.
        OSError: the packed copy cannot be written.
    """
    names = [name for part in layout.parts.values() for name in part.names]
    pixels = _load(path, names, to)
    corrupt = {int(row): reason for row, reason in json.loads(pixels.notes).items()}
    _check(path, names, corrupt, max_corrupt)
    found, first = {}, 0
    for name, part in layout.parts.items():
        whole = np.array([row not in corrupt for row in range(first, first + len(part.names))])
        if not whole.any():
            raise errors.InputError(f"{path}: every image of the part {name!r} is corrupt")
        label = None if part.label is None else part.label[whole]
        if label is not None and (lost := set(range(len(layout.classes))) - set(label.tolist())):
            raise errors.InputError(
                f"{path}: every image of the class {layout.classes[min(lost)]!r} is corrupt: "
                "repair them, or move its folder away"
            )
        chosen = np.flatnonzero(whole)
        kept = [part.names[row] for row in chosen]
        found[name] = Pictures(pixels, first + chosen, label, kept, layout.classes)
        first += len(part.names)
    return found


def _load(path: Path, names: Sequence[str], to: _image_decoder.Format) -> _checked_rows.Rows:
    """Opens the packed copy of these images, and makes it if there is none."""
    shape = (len(names), *to.shape)

    def again(rows: np.ndarray) -> np.ndarray:
        with _image_files.opened(path) as files:
            return np.stack([_decoded(files, names[row], to)[0] for row in rows])

    with _image_files.opened(path) as files:
        index = _image_index.opened(path, files, names)
        key = cache.key(_image_decoder.VERSION, to, datasets.digest(index.digests.tobytes()))
        copy = cache.folder() / f"images-{key}.npy"
        found = _checked_rows.opened(copy, shape, again)
        if found is None:
            with cache.locked(copy):  # another process may have made it by then
                found = _checked_rows.opened(copy, shape, again)
                if found is None:
                    _make(copy, path, files, names, to)
                    found = _checked_rows.opened(copy, shape, again)
    assert found is not None, copy
    if before := _image_index.replaced(path, index, repr(to), copy):
        _checked_rows.remove(before)
    return found


def _make(
    copy: Path,
    path: Path,
    files: _image_index.Files,
    names: Sequence[str],
    to: _image_decoder.Format,
) -> None:
    """Decodes all files in threads, and writes each image to its place in the copy."""
    shape = (len(names), *to.shape)
    sums = np.zeros(len(names), np.uint32)
    corrupt: dict[int, str] = {}
    screen = terminal.Terminal()
    screen.note(
        f"Decoding {len(names):,} images of {_paths.shown(path)}, once, into {_paths.shown(copy)}"
    )
    with (
        cache.writing(copy) as file,
        warnings.catch_warnings(),
        screen.progress(len(names), noun="image") as progress,
    ):
        # Filters apply to the whole process, so they are set before the threads start. Too large
        # an image becomes an error; other oddities are decoded silently.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        first_byte = cache.write_header(file, shape)

        def task(first: int) -> dict[int, str]:
            failed = {}
            for row in range(first, min(first + _image_index.CHUNK, len(names))):
                pixels, reason = _decoded(files, names[row], to)
                if reason:
                    failed[row] = reason
                sums[row] = _checked_rows.checksum(pixels)
                # On a full disk pwrite raises an error; a memory map would kill the process.
                os.pwrite(file.fileno(), pixels.tobytes(), first_byte + row * pixels.nbytes)
            return failed

        began, report = time.perf_counter(), throttle.Throttle(REPORT_SECONDS)
        for done, failed in _image_index.chunks(len(names), task):
            corrupt |= failed
            if report.due():
                rate = done / (time.perf_counter() - began)
                progress.update(done, metrics={"images_per_second": rate})
        # The checksums are written before the copy, because a copy without them is ignored.
        _checked_rows.write_sums(copy, sums, json.dumps(corrupt).encode())


def _decoded(
    files: _image_index.Files, name: str, to: _image_decoder.Format
) -> tuple[np.ndarray, str]:
    """Returns an image, and why it is corrupt (then it is zero)."""
    content, reason = _image_index.read(files, name)
    if not reason:
        try:
            return _image_decoder.decode(content, to), ""
        except MemoryError:
            raise
        except Exception as error:  # decoders raise any error on damaged or hostile bytes
            reason = " ".join(str(error).split()) or type(error).__name__
    return np.zeros(to.shape, np.uint8), reason


def _check(path: Path, names: Sequence[str], corrupt: Mapping[int, str], max_corrupt: int) -> None:
    if not corrupt:
        return
    shown = [f"{names[row]!r} ({reason})" for row, reason in list(corrupt.items())[:NAMED]]
    text = (
        f"{len(corrupt)} of {len(names)} images in {path} cannot be decoded: "
        f"{', '.join(shown)}{' …' if len(corrupt) > NAMED else ''}"
    )
    if len(corrupt) > max_corrupt:
        raise errors.InputError(
            f"{text}: repair or remove them, or skip so many with --config.data.max_corrupt_files="
            f"{len(corrupt)} (now {max_corrupt})"
        )
    terminal.Terminal(active=jax.process_index() == 0).warn(f"{text}; they are skipped")
