"""Makes shards. The bytes of a shard depend only on the plan and the source."""

import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from pipeline.datasets import _checked_rows
from pipeline.datasets.shards import claims, encoding, listing, manifest, sources
from pipeline.datasets.shards.plan import UNFINISHED, Plan, Shard
from pipeline.runtime import files
from pipeline.runtime.storage import faults, places

OPTIONS = "group_size:1,uncompressed"  # records that are read at random, one at a time
WAIT_SECONDS = 0.3  # between two looks at what other processes have made


def work(
    source: sources.Source, plan: Plan, folder: Path, made: Callable[[int], None] = lambda num: None
) -> None:
    """Makes shards until all are there, made by this process or by others.

    Args:
        source: of the plan.
        plan: the one in the folder.
        folder: of the prepared data set.
        made: called after some rows, with their number; it may raise to end the work.

    Raises:
        InputError: the source cannot be read.
        OSError: a shard cannot be written.
    """
    own, unfinished = claims.Claims(folder / UNFINISHED), folder / UNFINISHED
    while True:
        names = set(listing.names(unfinished))
        missing = [shard for shard in plan.shards if shard.record not in names]
        # Another host may have finished, and removed the records.
        if not missing or files.exists(folder / manifest.NAME):
            return
        taken = next((shard for shard in missing if own.take(shard.file, names)), None)
        if taken is None:
            made(0)
            time.sleep(WAIT_SECONDS)
            continue
        try:
            make(source, plan, folder, taken, made)
        except OSError:
            # Others have made this shard too, finished, and removed what was half written.
            if files.exists(folder / manifest.NAME):
                return
            raise
        own.made()


def make(
    source: sources.Source,
    plan: Plan,
    folder: Path,
    shard: Shard,
    made: Callable[[int], None] = lambda num: None,
) -> dict[str, Any]:
    """Makes one shard, and then its record; returns the record."""
    noted = _Noted(source, shard, made)
    content = _pixels(noted, plan) if plan.encoding == "pixels" else _records(noted, plan)
    _write(folder, shard.file, content)
    file = manifest.File(shard.file, len(content), manifest.digest(content))
    record = file._asdict() | {
        "names": noted.names,
        "sums": noted.sums,
        "entries": noted.entries,
        "corrupt": {str(row): found for row, found in noted.corrupt.items()},
    }
    text = json.dumps(record).encode()
    files.write(folder / UNFINISHED / shard.record, text)
    return json.loads(text)


def _write(folder: Path, name: str, content: bytes) -> None:
    """Writes a shard; what a kill leaves half written lies with the records, to be removed."""
    if places.is_bucket(folder):
        files.write(folder / name, content)
        return
    files.write(folder / UNFINISHED / name, content)
    with faults.writing(folder):
        os.replace(folder / UNFINISHED / name, folder / name)


class _Noted:
    """The rows of a shard, and what is noted of them while they are encoded."""

    def __init__(self, source: sources.Source, shard: Shard, made: Callable[[int], None]):
        self._source, self._shard, self._made = source, shard, made
        self.num, self.names = 0, 0  # rows, and a sum that stands for their names
        self.sums: list[int] = []
        self.entries: dict[str, list[Any]] = {name: [] for name in source.entries}
        self.corrupt: dict[int, tuple[str, str]] = {}

    def each(self, encode: Callable[[Any], Any], empty: Any) -> Iterator[Any]:
        """Yields what `encode` makes of the content of each row, or `empty` if it is corrupt."""
        shard = self._shard
        for row in self._source.rows(shard.part, shard.first, shard.stop):
            content, reason = empty, row.reason
            if not reason:
                try:
                    content = encode(row.content)
                except MemoryError:
                    raise
                except Exception as error:  # decoders raise any error on damaged or hostile bytes
                    reason = " ".join(str(error).split()) or type(error).__name__
            if reason:
                self.corrupt[shard.first + self.num] = row.name, reason
            # The sum depends on each name and its place, and not on where shards begin.
            self.names = (self.names + _stamp(shard.first + self.num, row.name)) % 2**64
            self.num += 1
            for name, values in self.entries.items():
                values.append(row.entries[name])
            self.sums.append(_checked_rows.checksum(np.frombuffer(content, np.uint8)))
            self._made(1)
            yield content
        assert self.num == shard.stop - shard.first, (self.num, shard)


def _stamp(row: int, name: str) -> int:
    content = f"{row}\0{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def _pixels(noted: _Noted, plan: Plan) -> bytes:
    """Returns an npy file [n, H, W, C] uint8."""
    zero = np.zeros(plan.to.shape, np.uint8).tobytes()
    body = [*noted.each(lambda content: encoding.decoded(content, plan.to).tobytes(), zero)]
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(body), *plan.to.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return b"".join((file.getvalue(), *body))


def _records(noted: _Noted, plan: Plan) -> bytes:
    """Returns an ArrayRecord file, with an empty record for a corrupt image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        writer = array_record_module.ArrayRecordWriter(str(path), OPTIONS)
        for content in noted.each(lambda c: encoding.encoded(c, plan.to, plan.encoding), b""):
            writer.write(content)
        # Neither a full disk nor a missing file raises an error.
        written = writer.ok()
        writer.close()
        reader = array_record_module.ArrayRecordReader(str(path))
        if not (written and reader.ok() and reader.num_records() == noted.num):
            raise OSError(f"cannot write {path}: make room there, or set TMPDIR")
        return path.read_bytes()
