"""Decodes images once into an uncompressed file in the user's cache, which all later runs map.

The decision: every file is decoded whole before training, so that which are corrupt is known, and
the same, on every process and in every run; the order of the examples then hangs on no error.
"""

import errno
import functools
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from pipeline.datasets import _image_decoder, _image_files, _image_layout
from pipeline.display import terminal
from pipeline.runtime import cache, errors, throttle

CHUNK = 64  # images of a thread's task
REPORT_SECONDS = 5.0
NAMED = 5  # corrupt files that a message names
# Errors that belong to one file and come again: a broken link, no permission, a loop of links.
# Others, such as a failing disk's, may hit one process alone, and are no property of the file.
FILE_ERRORS = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP)


class Pack(NamedTuple):
    """Pixels [N, side, side, channels] uint8, mapped, zero where corrupt: {name: reason}."""

    pixels: np.ndarray
    corrupt: Mapping[str, str]


class Pictures(NamedTuple):
    """The examples of a part: rows [n] of the pixels, and class indices [n] int32, if any."""

    pixels: np.ndarray
    rows: np.ndarray
    label: np.ndarray | None

    def __len__(self) -> int:
        """Returns n."""
        return len(self.rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, H, W, C] uint8 and, where there are classes, `label` [n] int32."""
        batch = {"image": self.pixels[self.rows[indices]]}
        return batch if self.label is None else batch | {"label": self.label[indices]}


def pictures(
    path: Path, layout: _image_layout.Layout, to: _image_decoder.Format, *, max_corrupt: int
) -> dict[str, Pictures]:
    """Opens the parts of a folder or zip, in the layout's order, without the corrupt images.

    Raises:
        InputError: more than `max_corrupt` files cannot be decoded, or all of a part; fewer are a
            printed warning. Or the disk fails.
        OSError: the packed copy cannot be written.
    """
    pack = _load(path, [name for part in layout.parts.values() for name in part.names], to)
    _check(path, pack, max_corrupt)
    found, first = {}, 0
    for name, part in layout.parts.items():
        whole = np.array([image not in pack.corrupt for image in part.names])
        if not whole.any():
            raise errors.InputError(f"{path}: every image of the part {name!r} is corrupt")
        label = None if part.label is None else part.label[whole]
        found[name] = Pictures(pack.pixels, first + np.flatnonzero(whole), label)
        first += len(part.names)
    return found


def _load(path: Path, names: Sequence[str], to: _image_decoder.Format) -> Pack:
    """Opens the packed copy of these images, and makes it where there is none."""
    with _image_files.opened(path) as files:
        stamps = [(name, files.stamp(name)) for name in names]
        key = cache.key(_image_decoder.VERSION, to, stamps)
        copy = cache.folder() / f"images-{key}.npy"
        pack = _open(copy, len(names), to)
        if pack is None:
            with cache.locked(copy):
                # Another process may have made it meanwhile.
                pack = _open(copy, len(names), to) or _make(copy, path, files, names, to)
    return pack


def _open(copy: Path, num: int, to: _image_decoder.Format) -> Pack | None:
    pixels = cache.open_array(copy, (num, to.side, to.side, to.channels))
    if pixels is None:
        return None
    try:
        return Pack(pixels, json.loads(copy.with_suffix(".json").read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def _make(
    copy: Path,
    path: Path,
    files: _image_files.Folder | _image_files.Archive,
    names: Sequence[str],
    to: _image_decoder.Format,
) -> Pack:
    """Decodes all files in threads, each image to its place in the copy."""
    shape = (len(names), to.side, to.side, to.channels)
    corrupt: dict[str, str] = {}
    screen = terminal.Terminal()
    screen.note(f"Decoding {len(names):,} images of {path}, once, into {copy}")
    with (
        cache.writing(copy) as file,
        warnings.catch_warnings(),
        ThreadPoolExecutor() as pool,
        screen.progress(len(names), noun="image") as progress,
    ):
        # Process-wide, so set before the threads start: a bomb is an error, oddities are decoded.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        first_byte = cache.write_header(file, shape)
        task = functools.partial(_decode_chunk, files, names, to, file.fileno(), first_byte)
        began, report = time.perf_counter(), throttle.Throttle(REPORT_SECONDS)
        for first, found in zip(
            range(0, len(names), CHUNK), pool.map(task, range(0, len(names), CHUNK)), strict=True
        ):
            corrupt |= found
            if report.due():
                done = min(first + CHUNK, len(names))
                rate = done / (time.perf_counter() - began)
                progress.update(done, metrics={"images_per_second": rate})
        # Before the copy, which without it counts for nothing.
        with cache.writing(copy.with_suffix(".json")) as listing:
            listing.write(json.dumps(corrupt).encode())
    pack = _open(copy, len(names), to)
    assert pack is not None, copy
    return pack


def _decode_chunk(
    files: _image_files.Folder | _image_files.Archive,
    names: Sequence[str],
    to: _image_decoder.Format,
    descriptor: int,
    first_byte: int,
    first: int,
) -> dict[str, str]:
    """Writes images `first` … of a chunk to their places; returns the corrupt ones' reasons."""
    corrupt = {}
    for index in range(first, min(first + CHUNK, len(names))):
        try:
            pixels = _image_decoder.decode(files.read(names[index]), to)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise anything on damaged or hostile bytes
            if isinstance(error, OSError) and error.errno not in FILE_ERRORS:
                raise errors.InputError(
                    f"{names[index]!r} cannot be read ({error}): see to the disk or file server "
                    "that holds it, then start again"
                ) from error
            corrupt[names[index]] = " ".join(str(error).split()) or type(error).__name__
            continue
        # A memory map would do, but dies of a full disk without an error.
        os.pwrite(descriptor, pixels.tobytes(), first_byte + index * pixels.nbytes)
    return corrupt


def _check(path: Path, pack: Pack, max_corrupt: int) -> None:
    if not pack.corrupt:
        return
    shown = [f"{name!r} ({reason})" for name, reason in list(pack.corrupt.items())[:NAMED]]
    text = (
        f"{len(pack.corrupt)} of {len(pack.pixels)} images in {path} cannot be decoded: "
        f"{', '.join(shown)}{' …' if len(pack.corrupt) > NAMED else ''}"
    )
    if len(pack.corrupt) > max_corrupt:
        raise errors.InputError(
            f"{text}: repair or remove them, or skip so many with --config.data.max_corrupt_files="
            f"{len(pack.corrupt)} (now {max_corrupt})"
        )
    terminal.Terminal(active=jax.process_index() == 0).warn(f"{text}; they are skipped")
