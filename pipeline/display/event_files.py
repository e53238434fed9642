"""TensorBoard's event files: reads them, names new ones, and removes what a resumed run repeats."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.display import event_records
from pipeline.runtime import errors, files
from pipeline.runtime.storage import places

NAMES = "events.out.tfevents.*"
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
    place = Path(folder) if isinstance(folder, str) else folder
    for path, content in _contents(place, warn or say):
        lost = 0
        for event, record in event_records.read(content):
            for value in event.summary.value if event else ():
                if value.HasField("simple_value"):
                    points.setdefault(value.tag, []).append((event.step, value.simple_value))
            lost += 0 if event else len(record)
        if lost:
            (warn or say)(f"{path} is damaged: {lost:,} bytes of it cannot be read")
    return points


def purge(
    folder: Path, last_step: int, *, warn: Callable[[str], None] | None = None
) -> tuple[dict[str, int], int]:
    """Removes all events after `last_step`, and those that describe the run as a whole.

    Each file is replaced in one step, so a kill at any moment leaves the old or the new file. Of a
    damaged file a copy stays, under a name that TensorBoard does not read. A file that cannot be
    read stays as it is.

    Args:
      folder: of the event files.
      last_step: of the restored checkpoint.
      warn: is called with a text about each file that is damaged or cannot be read; None: stderr.

    Returns:
      The last remaining step of each tag, and the number of remaining points.
    """
    warn, steps, points = warn or say, dict[str, int](), 0
    for path, content in _contents(folder, warn):
        lost, kept = 0, bytearray()
        for event, record in event_records.read(content):
            if event is None:
                lost += len(record)
            elif event.step <= last_step and not any(
                value.tag.startswith(OF_RUN) for value in event.summary.value
            ):
                kept += record
                points += len(event.summary.value)
                for value in event.summary.value:
                    steps[value.tag] = max(event.step, steps.get(value.tag, -1))
        if lost:
            aside = _copy(path, content)
            warn(
                f"{path} is damaged: {lost:,} bytes of it cannot be read; the rest stays, and "
                f"{aside.name} is a copy of the damaged file"
            )
        if len(kept) < len(content):
            _replace(path, bytes(kept))
    return steps, points


def _replace(path: Path, content: bytes) -> None:
    if places.is_bucket(path):
        path.write_bytes(content)
        return
    # The name must lack "tfevents": TensorBoard reads every file whose name contains it.
    temporary = path.with_name("purge.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _contents(folder: Path, warn: Callable[[str], None]) -> Iterator[tuple[Path, memoryview]]:
    """Yields the event files and their contents, oldest first."""
    found = sorted(folder.glob(NAMES))
    for path in found if places.is_bucket(folder) else filter(Path.is_file, found):
        try:
            yield path, memoryview(path.read_bytes())
        except OSError as error:
            if places.is_bucket(path):  # the store fails, which says nothing of this file
                raise
            warn(f"{path} cannot be read ({error.strerror}) and stays as it is")


def _copy(path: Path, content: memoryview) -> Path:
    """Writes the content of an event file to a free name that TensorBoard does not read."""
    aside = files.unused(path.with_name(path.name.replace("tfevents", "damaged")))
    with files.replacing(aside) as file:
        file.write(content)
    return aside


def say(text: str) -> None:
    """Prints a warning to stderr."""
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
