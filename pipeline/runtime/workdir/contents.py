"""What a run keeps in its folder, and whether something is missing from it."""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from pipeline.runtime import errors, files, storage
from pipeline.runtime.storage import places

SAVED = ".saved"  # the newest step that was committed: it shows that there were checkpoints
# What a start may leave that was killed, or met a full disk, before it wrote config.json.
LEFT = re.compile(r"\.lease-[0-9]+|\.config\.json|\..*\.tmp")


def is_empty(workdir: Path) -> bool:
    """Says whether a folder holds nothing, or only what an unsuccessful start left."""
    return all(LEFT.fullmatch(name) for name in files.names(workdir))


def committed(workdir: Path, *, marked: bool = False) -> list[int] | None:
    """Returns the committed steps, ascending; None if their folder is missing, in no bucket.

    Args:
        workdir: the folder of the run.
        marked: whether a step counts only with Orbax's marker, as in a bucket.
    """
    folder = workdir / "checkpoints"
    if places.is_bucket(folder):
        return committed_in_bucket(folder)
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if marked:  # a save that is under way has its final name already
        names = [name for name in names if (folder / name / storage.MARKER).exists()]
    return sorted(int(name) for name in names if is_step(name))


def committed_in_bucket(folder: Any) -> list[int]:
    """Returns the steps in a bucket that have Orbax's marker, ascending, by one listing."""
    parts = [str(path)[len(str(folder)) + 1 :].split("/") for path in folder.below()]
    marked = [part[0] for part in parts if part[1:] == [storage.MARKER]]
    return sorted(int(name) for name in marked if is_step(name))


def is_step(name: str) -> bool:
    """Says whether this is a checkpoint's name, as Orbax writes it: 007 is none."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name


def note_saved(workdir: Path, step: int) -> None:
    """Notes the newest committed step; a full disk must not end a run here."""
    path = workdir / SAVED
    with contextlib.suppress(OSError):
        if not files.is_odd(path):  # a pipe would wait for a reader
            files.write(path, json.dumps({"step": step}) + "\n")


def saved(workdir: Path) -> int | None:
    """Returns the step of `note_saved`; None if there is no note, or a damaged one."""
    path = workdir / SAVED
    if not path.is_file():  # a pipe would never end
        return None
    try:
        step = json.loads(path.read_bytes())["step"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def check_checkpoints(workdir: Path, *, marked: bool = False) -> None:
    """Checks that a run has not lost all its checkpoints: it would silently start at step 0.

    Raises:
        InputError: it had some.
    """
    steps, noted = committed(workdir, marked=marked), saved(workdir)
    # Every start makes the folder of checkpoints before the first event file.
    began = steps is None and any((workdir / "tensorboard").glob("events.out.tfevents.*"))
    if not steps and (began or noted is not None):
        of_step = "" if noted is None else f" of step {noted}"
        raise errors.InputError(
            f"the checkpoints{of_step} are gone from {workdir / 'checkpoints'}: put them back, or, "
            f"to start again at step 0, choose another --workdir or remove {workdir}"
        )
