"""Shards in a cache: made in threads, and made again from their source if they are damaged."""

import contextlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.datasets.shards import (
    checks,
    encoding,
    finishing,
    listing,
    making,
    manifest,
    sources,
    workers,
)
from pipeline.datasets.shards import plan as plans
from pipeline.display import terminal
from pipeline.runtime import errors


class _Ended(Exception):
    """Another thread has failed."""


def kept(folder: Path, plan: plans.Plan) -> manifest.Manifest | None:
    """Returns the manifest of a whole data set of this plan, None if there is none."""
    if not (folder / manifest.NAME).is_file():  # opening a pipe would wait
        return None
    try:
        whole = manifest.read(folder)
        plans.check_same(folder, whole, plan)
        listing.check_there(folder, whole)
        for part in whole.parts.values():
            for file in part.columns.values():
                if not (folder / file.file).is_file():
                    return None
                manifest.checked(folder, file)
    except (errors.InputError, OSError):
        return None
    return whole


def make(folder: Path, plan: plans.Plan, source: sources.Source) -> manifest.Manifest:
    """Makes what is missing, and all if what is there cannot be trusted.

    Corrupt images are only noted.

    Raises:
        InputError: the source cannot be read.
        OSError: a shard cannot be written.
    """
    _remove(folder / manifest.NAME)
    try:
        plans.agree(folder, plan)
    except (errors.InputError, OSError):
        _remove(folder)
        plans.agree(folder, plan)
    for path in folder.iterdir():  # what is no file could not be replaced
        if path.name != plans.UNFINISHED and not path.is_file():
            _remove(path)
    failed, lock, own = threading.Event(), threading.Lock(), 0
    with workers.shown(plan, folder) as shown, encoding.quietly():

        def made(num: int) -> None:
            nonlocal own
            if failed.is_set():
                raise _Ended
            with lock:
                own += num
                shown(own)

        def work() -> None:
            try:
                making.work(source, plan, folder, made)
            except BaseException:
                failed.set()
                raise

        num = min(os.cpu_count() or 1, len(plan.shards))
        with ThreadPoolExecutor(num) as pool:
            futures = [pool.submit(work) for _ in range(num)]
        faults = [fault for future in futures if (fault := future.exception())]
        for fault in sorted(faults, key=lambda fault: isinstance(fault, _Ended)):
            raise fault
    return finishing.finish(folder, plan, source, max_corrupt=None)


def place(
    folder: Path, plan: plans.Plan, source: sources.Source, part: manifest.Part
) -> checks.Place:
    """Returns where the shards of a part are, and makes a damaged one again from its source."""
    by_file = {shard.file: shard for shard in plan.shards}

    def path(number: int, again: bool) -> Path:
        file = part.shards[number]
        if again:
            terminal.Terminal().warn(
                f"{folder / file.file} is damaged: its images are decoded again from their files"
            )
            with encoding.quietly():
                record = making.make(source, plan, folder, by_file[file.file])
            finishing.clear(folder)
            if record["digest"] != file.digest:
                raise errors.InputError(
                    f"{folder} is damaged, and the files that it was made of have changed: remove "
                    "it, and start again"
                )
        return folder / file.file

    return path


def _remove(path: Path) -> None:
    """Removes a file, a folder, or whatever lies there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
