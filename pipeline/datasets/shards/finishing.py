"""The end of preparing: columns of labels and checksums, then `dataset.json`."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import datasets
from pipeline.datasets.shards import encoding, listing, making, manifest, sources
from pipeline.datasets.shards.plan import UNFINISHED, Plan, Shard
from pipeline.runtime import errors, files
from pipeline.runtime.storage import places

NAMED = 5  # corrupt images that a message names
SUMS = "sums"  # the column of the rows' checksums


def finish(
    folder: Path, plan: Plan, source: sources.Source, *, max_corrupt: int
) -> manifest.Manifest:
    """Writes `dataset.json` from the records of all shards, and removes the records.

    Several hosts may do this at the same time: they write the same.

    Raises:
        InputError: more than `max_corrupt` images are corrupt, or all of a part or a class.
    """
    try:
        records = {shard: _record(folder, shard) for shard in plan.shards}
    except FileNotFoundError:  # another host has finished
        whole = manifest.read(folder)
        _clear(folder)
        return whole
    try:
        whole = _manifest(folder, plan, source, records, max_corrupt)
    except errors.InputError:
        # Repaired images are read again only if their shards are made again.
        for shard, record in records.items():
            if record["corrupt"]:
                _forget(folder, shard)
        raise
    manifest.write(folder, whole)
    _clear(folder)
    return whole


def mend(folder: Path, plan: Plan, source: sources.Source, whole: manifest.Manifest) -> int:
    """Makes the shards again that a whole data set lacks; returns how many.

    Raises:
        InputError: the source has changed since.
    """
    there, mended = set(listing.names(folder)), 0
    by_file = {shard.file: shard for shard in plan.shards}
    for part in whole.parts.values():
        for file in part.shards:
            if file.file in there:
                continue
            with encoding.quietly():
                record = making.make(source, plan, folder, by_file[file.file])
            _clear(folder)
            mended += 1
            if record["digest"] != file.digest:
                (folder / file.file).unlink(missing_ok=True)
                raise errors.InputError(
                    f"{folder / file.file} is missing, and the images that it was made of have "
                    "changed: prepare them into another --out"
                )
        if lost := sorted({file.file for file in part.columns.values()} - there):
            raise errors.InputError(
                f"{folder / lost[0]} is missing: remove {folder / manifest.NAME}, then start again"
            )
    return mended


def describe_corrupt(found: Sequence[tuple[str, str]], num: int) -> str:
    """Returns a text that counts and names corrupt images."""
    shown = ", ".join(f"{name!r} ({reason})" for name, reason in found[:NAMED])
    dots = " …" if len(found) > NAMED else ""
    return f"{len(found)} of {num} images cannot be decoded: {shown}{dots}"


def _record(folder: Path, shard: Shard) -> dict[str, Any]:
    try:
        return json.loads((folder / UNFINISHED / shard.record).read_bytes())
    except ValueError:
        _forget(folder, shard)
        raise errors.InputError(
            f"{folder / UNFINISHED / shard.record} was damaged and is removed: start again"
        ) from None


def _clear(folder: Path) -> None:
    """Removes what is only needed until the data set is whole."""
    for name in listing.names(folder / UNFINISHED):
        (folder / UNFINISHED / name).unlink(missing_ok=True)
    if not places.is_bucket(folder):
        with contextlib.suppress(OSError):  # another host has removed it, or still writes into it
            (folder / UNFINISHED).rmdir()


def _forget(folder: Path, shard: Shard) -> None:
    for name in listing.names(folder / UNFINISHED):
        if name == shard.record or name.startswith(f"{shard.file}.claim-"):
            (folder / UNFINISHED / name).unlink(missing_ok=True)


def _manifest(
    folder: Path,
    plan: Plan,
    source: sources.Source,
    records: Mapping[Shard, Mapping[str, Any]],
    max_corrupt: int,
) -> manifest.Manifest:
    corrupt = [found for record in records.values() for found in record["corrupt"].values()]
    if len(corrupt) > max_corrupt:
        raise errors.InputError(
            f"{describe_corrupt(corrupt, sum(plan.rows.values()))}: repair or remove them, or skip "
            f"so many with --max_corrupt_files={len(corrupt)} (now {max_corrupt})"
        )
    entries, parts = _entries(source, [*records.values()]), {}
    for part, rows in plan.rows.items():
        own = [record for shard, record in records.items() if shard.part == part]
        left_out = {int(row): tuple(why) for one in own for row, why in one["corrupt"].items()}
        if len(left_out) == rows:
            raise errors.InputError(f"every image of the part {part!r} is corrupt: repair them")
        columns = {SUMS: np.array([s for one in own for s in one["sums"]], "<u4")}
        for name in entries:
            columns[name] = np.array([row for one in own for row in one["entries"][name]], "<i4")
            _check_classes(columns[name], [*left_out], entries[name], part)
        parts[part] = manifest.Part(
            rows=rows,
            per_shard=plan.per_shard[part],
            names=f"{sum(one['names'] for one in own) % 2**64:016x}",
            shards=tuple(manifest.File(one["file"], one["bytes"], one["digest"]) for one in own),
            columns={n: _column(folder, f"{part}-{n}.npy", a) for n, a in columns.items()},
            corrupt=left_out,
        )
    to = plan.to
    return manifest.Manifest(plan.encoding, to.shape, to.short_side, entries, plan.digest, parts)


def _entries(
    source: sources.Source, records: Sequence[Mapping[str, Any]]
) -> dict[str, datasets.Classes]:
    """Returns the entries of the source, with the numbers of classes that are found."""
    entries = {}
    for name, entry in source.entries.items():
        rows = [np.array(record["entries"][name]).reshape(-1, len(entry.num_classes))
                for record in records]  # fmt: skip
        most = np.max([row.max(axis=0) for row in rows], axis=0)
        least = min(int(row.min()) for row in rows)
        if least < 0:
            raise errors.InputError(f"the source has the {name} {least}: classes begin with 0")
        sizes = tuple(n or int(m) + 1 for n, m in zip(entry.num_classes, most, strict=True))
        entries[name] = datasets.Classes(
            sizes, entry.shape, names=entry.names, class_names=entry.class_names
        )
    return entries


def _check_classes(
    column: np.ndarray, left_out: Sequence[int], entry: datasets.Classes, part: str
) -> None:
    """Raises an InputError if a class lost all of its images, as far as it had some."""
    if not left_out or entry.shape:
        return
    kept = np.delete(column, left_out)
    if lost := sorted(set(column.tolist()) - set(kept.tolist())):
        names = entry.class_names[0] if entry.class_names else ()
        shown = repr(names[lost[0]]) if names else str(lost[0])
        raise errors.InputError(
            f"every image of the class {shown} in the part {part!r} is corrupt: repair them, or "
            "leave the class out"
        )


def _column(folder: Path, name: str, array: np.ndarray) -> manifest.File:
    file = io.BytesIO()
    np.save(file, array)
    files.write(folder / name, file.getvalue())
    return manifest.File(name, len(file.getvalue()), manifest.digest(file.getvalue()))
