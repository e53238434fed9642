"""What is to be prepared: which rows each shard holds, as a function of names and flags only.

All processes and hosts that prepare a data set at the same time have the same plan, or are refused.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets import _image_decoder
from pipeline.datasets.shards import encoding, listing, manifest, sources
from pipeline.runtime import errors, files

UNFINISHED = "unfinished"  # the folder of what is only needed until the data set is whole
NAME = "plan.json"
SHARD_BYTES = 2**27  # expected of a shard: one is made in memory, and copied whole
LEAST_SHARDS = 16  # of a part of some size, so that many processes can work on it
LEAST_ROWS = 256  # of a shard, if there are as many
CACHE_BYTES, CACHE_SHARDS, CACHE_ROWS = 2**25, 64, 64  # the same of shards in a cache
JPEG_SHARE = 0.15  # expected bytes of a JPEG or PNG, as a share of its pixels
SIDE = 64  # of images that have no size of their own, as config.data.image_size


class Asked(NamedTuple):
    """What the flags ask for; 0 and "auto" leave it to the source."""

    sides: tuple[int, int] | None = None  # height and width
    resize: int = 0
    channels: int = 0
    encoding: str = "auto"
    shards: int = 0  # of the largest part
    per_shard: int = 0


class Shard(NamedTuple):
    """The rows `first` … `stop` − 1 of a part, in one file."""

    part: str
    number: int
    first: int
    stop: int
    file: str

    @property
    def record(self) -> str:
        """The file beside the plan that says what the shard holds, written after the shard."""
        return f"{self.file}.json"


class Plan(NamedTuple):
    """What is prepared, and how."""

    source: str  # stands for the names of all examples
    encoding: str
    to: _image_decoder.Format
    rows: dict[str, int]  # by part
    per_shard: dict[str, int]

    @property
    def digest(self) -> str:
        """Stands for the plan in `dataset.json`."""
        return files.digest(self._asdict())

    @property
    def shards(self) -> list[Shard]:
        """All shards in their order."""
        suffix = manifest.SUFFIXES[self.encoding]
        return [
            Shard(part, k, first, min(first + self.per_shard[part], rows),
                  f"{part}-{k:05d}.{suffix}")
            for part, rows in self.rows.items()
            for k, first in enumerate(range(0, rows, self.per_shard[part]))
        ]  # fmt: skip


def make(source: sources.Source, asked: Asked) -> Plan:
    """Returns the plan for a source.

    Raises:
        InputError: the flags cannot work, or the source has no size and is not square.
    """
    to = _format(source.shape, asked)
    chosen = asked.encoding
    if chosen == "auto":
        chosen = "pixels" if max(to.size) <= encoding.PIXELS_UP_TO else "jpeg"
    if asked.shards and asked.per_shard:
        raise errors.InputError(
            f"--shards={asked.shards} and --per_shard={asked.per_shard} say the same: give one"
        )
    most = max(source.parts.values())
    if not most:
        raise errors.InputError("--source holds no examples: give one that has some")
    per = asked.per_shard
    if asked.shards:
        per = -(-most // asked.shards)
    if not per:
        size = math.prod(to.shape) * (1 if chosen == "pixels" else JPEG_SHARE)
        per = min(max(LEAST_ROWS, -(-most // LEAST_SHARDS)), max(1, int(SHARD_BYTES / size)))
    return _plan(source, chosen, to, per)


def of_cache(source: sources.Source, to: _image_decoder.Format) -> Plan:
    """Returns the plan of pixels that one process makes in threads, each with a shard in memory."""
    most = max(source.parts.values())
    least = max(CACHE_ROWS, -(-most // CACHE_SHARDS))
    return _plan(source, "pixels", to, min(least, max(1, CACHE_BYTES // math.prod(to.shape))))


def _plan(source: sources.Source, kind: str, to: _image_decoder.Format, per: int) -> Plan:
    rows = dict(source.parts)
    return Plan(source.identity, kind, to, rows, {part: min(per, n) for part, n in rows.items()})


def agree(folder: Path, plan: Plan) -> None:
    """Writes the plan, or compares it with the one that is there.

    Raises:
        InputError: the folder holds something else, or was begun with other data or flags.
    """
    text, path = json.dumps(plan._asdict(), indent=1), folder / UNFINISHED / NAME
    if not files.create(path, text.encode()) and path.read_text() != text:
        kept = _read(path)
        raise errors.InputError(
            f"{folder} was begun with {_difference(kept, plan)}: finish it with the same command, "
            "remove it, or choose another --out"
        )


def check_same(folder: Path, whole: manifest.Manifest, plan: Plan) -> None:
    """Raises an InputError if a whole data set was prepared by another plan."""
    if whole.source != plan.digest:
        raise errors.InputError(
            f"{folder} holds a data set that was prepared from other images or with other flags: "
            "choose another --out, or remove it"
        )


def check_empty(folder: Path) -> None:
    """Raises an InputError if a folder without a plan has other files in it."""
    found = [name for name in listing.names(folder) if not name.startswith(".")]
    if found and UNFINISHED not in found:
        raise errors.InputError(
            f"{folder} holds other files, such as {found[0]!r}: choose an empty or new --out"
        )


def _format(shape: Sequence[int] | None, asked: Asked) -> _image_decoder.Format:
    sides, channels = asked.sides, asked.channels
    if shape is not None:
        sides, channels = sides or (shape[0], shape[1]), channels or (1 if shape[2] < 3 else 3)
    (height, width), channels = sides or (SIDE, SIDE), channels or 3
    if channels not in (1, 3):
        raise errors.InputError(f"--channels={channels} must be 1 or 3")
    if height != width:
        if asked.resize:
            raise errors.InputError(
                f"--resize={asked.resize} needs one number as --image_size: leave it out, then an "
                f"image is scaled until it covers {height}×{width} pixels"
            )
        return _image_decoder.Format((height, width), min(height, width), channels)
    short = asked.resize or height
    if short < height:
        raise errors.InputError(
            f"--resize={short} is less than --image_size={height}, which is cut out of it: raise "
            "it, or leave it out"
        )
    return _image_decoder.Format(height, short, channels)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise errors.InputError(
            f"{path} is damaged: remove {path.parent}, then start again"
        ) from None


def _difference(kept: dict, plan: Plan) -> str:
    now = json.loads(json.dumps(plan._asdict()))
    names = [name for name in now if kept.get(name) != now[name]]
    if "rows" in names or "source" in names:
        return f"other images ({kept.get('rows')}, not {now['rows']})"
    shown = "; ".join(f"{name} {kept.get(name)}, not {now[name]}" for name in names)
    return shown or "another version"
