"""TensorBoard's event files: reads them, names new ones, and removes what a resumed run repeats."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime import errors, files

NAMES = "events.out.tfevents.*"
HEAD = 12  # bytes of a record before its data
# Tags that describe the run as a whole. Every start writes them again, because some config fields
# may change on resuming.
OF_RUN = ("config", "custom_scalars__config__", "_hparams_/")


def read_scalars(
    folder: str | Path, *, warn: Callable[[str], None] | None = None
) -> dict[str, list[tuple[int, float]]]:
    """Reads all scalar points of a folder's event files, in the order in which they were written.

    Args:
      folder: of the event files.
      warn: is called with a text about each file that is damaged or cannot be read; None: stderr.

    Returns:
      Each tag's (step, value) pairs; values are float32, converted to Python floats.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for path, content in _contents(Path(folder), warn or _say):
        lost = 0
        for event, record in _records(content):
            for value in event.summary.value if event else ():
                if value.HasField("simple_value"):
                    points.setdefault(value.tag, []).append((event.step, value.simple_value))
            lost += 0 if event else len(record)
        if lost:
            (warn or _say)(f"{path} is damaged: {lost:,} bytes of it cannot be read")
    return points


def purge(
    folder: Path, last_step: int, *, warn: Callable[[str], None] | None = None
) -> dict[str, int]:
    """Removes all events after `last_step`, and those that describe the run as a whole.

    Each file is replaced in one step, so a kill at any moment leaves the old or the new file. Of a
    damaged file a copy stays, under a name that TensorBoard does not read. A file that cannot be
    read stays as it is.

    Args:
      folder: of the event files.
      last_step: of the restored checkpoint.
      warn: is called with a text about each file that is damaged or cannot be read; None: stderr.

    Returns:
      The last remaining step of each tag.
    """
    warn, steps = warn or _say, dict[str, int]()
    # The name must lack "tfevents": TensorBoard reads every file whose name contains it.
    temporary = folder / "purge.tmp"
    for path, content in _contents(folder, warn):
        lost = 0
        with temporary.open("wb") as file:
            for event, record in _records(content):
                if event is None:
                    lost += len(record)
                elif event.step <= last_step and not any(
                    value.tag.startswith(OF_RUN) for value in event.summary.value
                ):
                    file.write(record)
                    for value in event.summary.value:
                        steps[value.tag] = max(event.step, steps.get(value.tag, -1))
            file.flush()
            os.fsync(file.fileno())
        if lost:
            aside = _copy(path, content)
            warn(
                f"{path} is damaged: {lost:,} bytes of it cannot be read; the rest stays, and "
                f"{aside.name} is a copy of the damaged file"
            )
        if temporary.stat().st_size == len(content):
            temporary.unlink()
        else:
            os.replace(temporary, path)
    return steps


def _contents(folder: Path, warn: Callable[[str], None]) -> Iterator[tuple[Path, memoryview]]:
    """Yields the event files and their contents, oldest first."""
    for path in sorted(path for path in folder.glob(NAMES) if path.is_file()):
        try:
            yield path, memoryview(path.read_bytes())
        except OSError as error:
            warn(f"{path} cannot be read ({error.strerror}) and stays as it is")


def _records(content: memoryview) -> Iterator[tuple[Any, memoryview]]:
    """Yields each whole record and its event; None, and its bytes, for what is damaged.

    Reading goes on after the damage. A record that is cut at the end of the file is left out.
    """
    at = 0
    while at < len(content):
        event, end = _record(content, at)
        if event is None:
            is_cut = end > len(content)
            follows = at < end < len(content) and _record(content, end)[0] is not None
            end = end if follows else _next_record(content, at + 1)
            if is_cut and end == len(content):
                return
        yield event, content[at:end]
        at = end


def _record(content: memoryview, at: int) -> tuple[Any, int]:
    """Returns the event of the record at a position, or None, and where the record ends.

    A record is a uint64 length, the masked CRC-32C of the length, the data, and the masked CRC-32C
    of the data. The end is after the content's end if the record is cut, and `at` if its length is
    damaged.
    """
    checksum = tensorboardx().record_writer.masked_crc32c
    if len(head := bytes(content[at : at + HEAD])) < HEAD:
        return None, at + HEAD
    length, length_checksum = struct.unpack("<QI", head)
    if checksum(head[:8]) != length_checksum:
        return None, at
    end = at + HEAD + length + 4
    if end > len(content):
        return None, end
    data = bytes(content[at + HEAD : end - 4])
    if content[end - 4 : end] == struct.pack("<I", checksum(data)):
        with contextlib.suppress(Exception):  # protocol buffers have an error of their own
            return tensorboardx().proto.event_pb2.Event.FromString(data), end
    return None, end


def _next_record(content: memoryview, start: int) -> int:
    """Returns where the next whole record begins, or the content's end; linear in the distance."""
    table = np.array(tensorboardx().crc32c.CRC_TABLE, np.uint32)
    values, size = np.frombuffer(content, np.uint8), 1 << 12
    while start < len(content) - HEAD:
        window = values[start : start + size + HEAD]
        # No record has 4 GB, so the upper half of its length is zero.
        num, zero = len(window) - HEAD + 1, window == 0
        upper = [zero[byte : byte + num] for byte in range(4, 8)]
        places = np.flatnonzero(np.logical_and.reduce(upper))
        bits = np.full(places.shape, 0xFFFFFFFF, np.uint32)
        for number in range(8):
            bits = table[(bits ^ window[places + number]) & 0xFF] ^ (bits >> 8)
        bits = ~bits
        masked = ((bits >> 15) | (bits << 17)) + np.uint32(0xA282EAD8)
        stored = np.zeros_like(masked)
        for number in range(4):
            stored |= window[places + 8 + number].astype(np.uint32) << np.uint32(8 * number)
        for place in places[masked == stored]:
            if _record(content, start + int(place))[0] is not None:
                return start + int(place)
        start, size = start + size, min(2 * size, 1 << 20)
    return len(content)


def _copy(path: Path, content: memoryview) -> Path:
    """Writes the content of an event file to a free name that TensorBoard does not read."""
    aside = files.unused(path.with_name(path.name.replace("tfevents", "damaged")))
    with files.replacing(aside) as file:
        file.write(content)
    return aside


def _say(text: str) -> None:
    errors.say(f"warning: {text}")


def next_path(folder: Path) -> Path:
    """Returns a new name that sorts after all others: TensorBoard reads files in this order.

    tensorboardX names files by the current second and overwrites an existing one. Two starts within
    a second would share a file. A start on a host with a slow clock would sort before earlier ones.
    """
    stamps = [path.name.split(".")[3] for path in folder.glob(NAMES)]
    latest = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    stamp = max(int(time.time()), latest + 1)
    return folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}"


def tensorboardx() -> Any:
    """Returns tensorboardX, imported at its first use: it imports torch if torch is installed."""
    import tensorboardX

    return tensorboardX
