"""Decodes images once into an uncompressed file in the user's cache, which all later runs map.

Every file is decoded before training. So every process and every run knows the same corrupt files,
and the order of the examples does not depend on errors while reading.
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

CHUNK = 64  # images per task of a thread
REPORT_SECONDS = 5.0
NAMED = 5  # corrupt files that a message names
# Errors that belong to one file and occur every time: a broken link, no permission, a loop of
# links. Others, such as those of a failing disk, may hit only one process.
FILE_ERRORS = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP)


class Pack(NamedTuple):
    """The decoded images of all splits."""

    pixels: np.ndarray  # [N, side, side, channels] uint8, memory-mapped; zeros for corrupt images
    corrupt: Mapping[str, str]  # {name: reason}


class Pictures(NamedTuple):
    """The n examples of a split."""

    pixels: np.ndarray  # [N, H, W, C] uint8, of all splits
    rows: np.ndarray  # [n], the row of each example in `pixels`
    label: np.ndarray | None  # [n] int32 class indices, if there are classes

    def __len__(self) -> int:
        """Returns n."""
        return len(self.rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, H, W, C] uint8 and, if there are classes, `label` [n] int32."""
        batch = {"image": self.pixels[self.rows[indices]]}
        return batch if self.label is None else batch | {"label": self.label[indices]}


def pictures(
    path: Path, layout: _image_layout.Layout, to: _image_decoder.Format, *, max_corrupt: int
) -> dict[str, Pictures]:
    """Opens the splits of a folder or zip, in the layout's order, without the corrupt images.

    Up to `max_corrupt` files that cannot be decoded only print a warning.

    Raises:
        InputError: more than `max_corrupt` files or all files of a split cannot be decoded, or the
            disk fails.
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
    """Opens the packed copy of these images, and makes it if there is none."""
    with _image_files.opened(path) as files:
        stamps = [(name, files.stamp(name)) for name in names]
        key = cache.key(_image_decoder.VERSION, to, stamps)
        copy = cache.folder() / f"images-{key}.npy"
        pack = _open(copy, len(names), to)
        if pack is None:
            with cache.locked(copy):
                # Another process may have made it before the lock was free.
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
    """Decodes all files in threads, and writes each image to its place in the copy."""
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
        # Filters apply to the whole process, so they are set before the threads start. Too large
        # an image becomes an error; other oddities are decoded silently.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        first_byte = cache.write_header(file, shape)
        task = functools.partial(_decode_chunk, files, names, to, file.fileno(), first_byte)
        # `map` keeps the order of the chunks, so `corrupt` has the same order in every run.
        began, report = time.perf_counter(), throttle.Throttle(REPORT_SECONDS)
        for first, found in zip(
            range(0, len(names), CHUNK), pool.map(task, range(0, len(names), CHUNK)), strict=True
        ):
            corrupt |= found
            if report.due():
                done = min(first + CHUNK, len(names))
                rate = done / (time.perf_counter() - began)
                progress.update(done, metrics={"images_per_second": rate})
        # The listing is written before the copy, because `_open` ignores a copy without one.
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
    """Writes the chunk of images from `first` on; returns the corrupt ones as {name: reason}."""
    corrupt = {}
    for index in range(first, min(first + CHUNK, len(names))):
        try:
            pixels = _image_decoder.decode(files.read(names[index]), to)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise any error on damaged or hostile bytes
            if isinstance(error, OSError) and error.errno not in FILE_ERRORS:
                raise errors.InputError(
                    f"{names[index]!r} cannot be read ({error}): see to the disk or file server "
                    "that holds it, then start again"
                ) from error
            corrupt[names[index]] = " ".join(str(error).split()) or type(error).__name__
            continue
        # On a full disk pwrite raises an error; a memory map would kill the process.
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
