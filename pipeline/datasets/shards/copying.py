"""Copies a prepared data set to this machine, once for all of its processes, in whole shards.

Each file is compared with its digest while it is copied. The copy lies in the user's cache.
"""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.datasets.shards import manifest
from pipeline.display import terminal
from pipeline.runtime import cache, errors, throttle

THREADS = 4  # files that are copied at the same time
REPORT_SECONDS = 5.0
SPARE_BYTES = 2**28  # that a copy leaves free


def copied(folder: Path, whole: manifest.Manifest) -> Path:
    """Returns the folder of the copy; copies what is missing in it.

    Raises:
        InputError: the disk is too small, said before anything is copied; or a shard is missing or
            altered.
        OSError: the copy cannot be written.
    """
    files = [shard for part in whole.parts.values() for shard in part.shards]
    stem = f"prepared-{cache.key(str(folder))[:12]}"
    place = cache.folder() / f"{stem}-{cache.key([file.digest for file in files])[:12]}"
    if not _lacking(place, files):
        return place
    with cache.locked(place / "copy"):  # the other processes of this machine wait for the copy
        if lacking := _lacking(place, files):
            for former in cache.folder().glob(f"{stem}-*"):
                if former != place:  # of other data, which were prepared into the same folder
                    shutil.rmtree(former, ignore_errors=True)
            _check_room(folder, place, lacking)
            _copy(folder, place, lacking)
    return place


def again(folder: Path, place: Path, file: manifest.File) -> Path:
    """Copies a file once more, because its copy is damaged; returns the path of the copy."""
    terminal.Terminal().warn(f"{place / file.file} is damaged: it is copied again from {folder}")
    with cache.writing(place / file.file) as copy:
        copy.write(manifest.checked(folder, file))
    return place / file.file


def _lacking(place: Path, files: Sequence[manifest.File]) -> list[manifest.File]:
    def is_whole(file: manifest.File) -> bool:
        path = place / file.file
        return path.is_file() and path.stat().st_size == file.bytes

    return [file for file in files if not is_whole(file)]


def _check_room(folder: Path, place: Path, files: Sequence[manifest.File]) -> None:
    disk = place
    while not disk.exists():
        disk = disk.parent
    needed, free = sum(file.bytes for file in files), shutil.disk_usage(disk).free
    if needed + SPARE_BYTES > free:
        raise errors.InputError(
            f"{folder} takes {needed / 1e9:.1f} GB on this machine, and {disk} has "
            f"{free / 1e9:.1f} GB free: make room, set XDG_CACHE_HOME to a folder that has it, or "
            "read it in place with --config.data.copy=never"
        )


def _copy(folder: Path, place: Path, files: Sequence[manifest.File]) -> None:
    screen, total = terminal.Terminal(), sum(file.bytes for file in files)
    screen.note(f"Copying {total / 1e6:,.0f} MB of {folder}, once, into {place}")

    def copy(file: manifest.File) -> int:
        content = manifest.checked(folder, file)
        with cache.writing(place / file.file) as written:
            written.write(content)
        return file.bytes

    began, done, report = time.perf_counter(), 0, throttle.Throttle(REPORT_SECONDS)
    with (
        screen.progress(total // 2**20, noun="MiB", transient=True) as progress,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for num in pool.map(copy, files):
            done += num
            if report.due():
                rate = done / 1e6 / (time.perf_counter() - began)
                progress.report(done // 2**20, f"{rate:,.0f} MB/s")
