"""TensorBoard's event files: reads them, names new ones, and removes what a resumed run repeats."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Tags that describe the run as a whole. Every start writes them again, because some config fields
# may change on resuming.
OF_RUN = ("config", "custom_scalars__config__", "_hparams_/")


def read_scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Reads all scalar points of a folder's event files, in the order in which they were written.

    Returns:
      Each tag's (step, value) pairs; values are float32, converted to Python floats.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for path in _event_files(Path(folder)):
        for _, event in _records(path):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def purge(folder: Path, last_step: int) -> dict[str, int]:
    """Removes all events after `last_step`, and those that describe the run as a whole.

    Each file is replaced in one step, so a kill at any moment leaves the old or the new file.

    Returns:
      The last remaining step of each tag.
    """
    steps: dict[str, int] = {}
    # The name must lack "tfevents": TensorBoard reads every file whose name contains it.
    temporary = folder / "purge.tmp"
    for path in _event_files(folder):
        with temporary.open("wb") as file:
            for record, event in _records(path):
                of_run = any(value.tag.startswith(OF_RUN) for value in event.summary.value)
                if event.step <= last_step and not of_run:
                    file.write(record)
                    for value in event.summary.value:
                        steps[value.tag] = max(event.step, steps.get(value.tag, -1))
            file.flush()
            os.fsync(file.fileno())
        if temporary.stat().st_size == path.stat().st_size:
            temporary.unlink()
        else:
            os.replace(temporary, path)
    return steps


def _records(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Yields each complete record and its event; stops at the first damaged or cut record.

    A record is a uint64 length, the masked CRC-32C of the length, the data, and the masked CRC-32C
    of the data.
    """
    checksum = tensorboardx().record_writer.masked_crc32c
    parse = tensorboardx().proto.event_pb2.Event.FromString
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            length, length_checksum = struct.unpack("<QI", head)
            if checksum(head[:8]) != length_checksum:
                return
            tail = file.read(length + 4)
            data = tail[:length]
            if tail[length:] != struct.pack("<I", checksum(data)):
                return
            yield head + tail, parse(data)


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def next_path(folder: Path) -> Path:
    """Returns a new name that sorts after all others: TensorBoard reads files in this order.

    tensorboardX names files by the current second and overwrites an existing one. Two starts within
    a second would share a file. A start on a host with a slow clock would sort before earlier ones.
    """
    stamps = [path.name.split(".")[3] for path in _event_files(folder)]
    latest = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    stamp = max(int(time.time()), latest + 1)
    return folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}"


def tensorboardx() -> Any:
    """Returns tensorboardX, imported at its first use: it imports torch if torch is installed."""
    import tensorboardX

    return tensorboardX
