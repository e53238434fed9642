"""What lies in a folder of checkpoints: whole steps, damaged things, and the figures of each step.

Nothing here removes anything. What is damaged gets another name (`files.set_aside`) and stays.
"""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from pipeline.runtime import errors, files, storage
from pipeline.runtime.storage import places
from pipeline.runtime.workdir import contents

FIGURES = "metrics"  # the folder in a checkpoint, and the file in it
DIGEST = "digest"  # the entry beside the figures
_STORES = ("gs", "s3", "az", "hf")  # Orbax takes /gs/x for the bucket gs://x
_LocalPath: Any = type(epath.Path("/"))


class LiteralPath(_LocalPath):
    """A path whose own name is no pattern.

    Orbax finds files by patterns in a folder. Its paths would take the brackets in `runs/run[1]`
    for a part of the pattern, find nothing, and commit a checkpoint without arrays.
    """

    def glob(self, pattern: str) -> Iterator[Any]:
        """Yields the paths in this folder that match the pattern."""
        for found in glob.glob(os.path.join(glob.escape(str(self)), pattern)):
            yield self._new(found)


def check_path(folder: Path) -> None:
    """Raises an InputError if checkpoints would not lie where the path says."""
    if places.is_bucket(folder):
        return
    name, parts = str(folder), folder.parts
    fault = ""
    if "\\" in name:
        fault = "a backslash, which TensorStore takes for a slash,"
    elif any("\ud800" <= char <= "\udfff" for char in name):
        fault = "a name that is not UTF-8"
    elif "gs:" in parts:
        fault = "a folder named 'gs:', which stands for a bucket,"
    elif len(parts) > 1 and parts[1] in _STORES:
        fault = f"/{parts[1]}, which stands for a bucket,"
    if fault:
        shown = name.encode(errors="backslashreplace").decode()
        raise errors.InputError(
            f"{shown} cannot hold checkpoints: {fault} is in its path; choose another --workdir"
        )


def literal(folder: Any) -> Any:
    """Returns a path as Orbax needs it."""
    return folder if places.is_bucket(folder) else LiteralPath(folder)


def is_marked(folder: Path, section: Any) -> bool:
    """Says whether a marker makes a checkpoint valid: a folder cannot be renamed there.

    Args:
        folder: of the run's checkpoints.
        section: of the config, `checkpoint`.
    """
    return places.is_bucket(folder) or section.atomicity == "commit_file"


def unfinished(folder: Path) -> list[tuple[Path, bool]]:
    """Returns the steps without a marker, and whether they had been committed."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if contents.is_step(path.name) and not (path / storage.MARKER).exists():
            found.append((path, _was_committed(path)))
    return found


def entries(folder: Path, *, marked: bool = False) -> dict[int, str]:
    """Returns what is named by a step, ascending, with its fault; "" if it is a folder.

    Args:
        folder: of the run's checkpoints.
        marked: whether only those with a marker count.
    """
    if marked and places.is_bucket(folder):
        return dict.fromkeys(contents.committed_in_bucket(folder), "")
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if contents.is_step(path.name):
            fault = ""
            if marked and not (path / storage.MARKER).exists():
                continue
            if not path.is_dir():
                fault = "it is a broken link" if path.is_symlink() else "it is no folder"
            found[int(path.name)] = fault
    return dict(sorted(found.items()))


def links_of_saves(folder: Path) -> list[Path]:
    """Returns the links under names of unfinished saves, which Orbax cannot remove."""
    if places.is_bucket(folder):
        return []
    found = folder.glob("*.orbax-checkpoint-tmp*") if folder.is_dir() else ()
    return [path for path in found if path.is_symlink()]


def with_digest(figures: Mapping[str, float]) -> dict[str, Any]:
    """Returns the figures as a checkpoint keeps them, with an entry that finds damage."""
    return {**figures, DIGEST: _digest(figures)}


def figures(step_folder: Path) -> tuple[dict[str, float], str]:
    """Returns the figures of a checkpoint, and the fault that they have.

    Figures without a digest, from earlier versions, are only checked for their form. A step that
    was not evaluated has no figures and no fault.
    """
    path = step_folder / FIGURES / FIGURES
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        if aside(step_folder).exists():
            return {}, "they were set aside"
        return {}, "they are missing" if _was_evaluated(step_folder) else ""
    except OSError as error:
        return {}, f"they cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return {}, "they are no JSON"
    digest = found.pop(DIGEST, None) if isinstance(found, dict) else None
    try:
        found = {name: float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        return {}, "they are no table of figures"
    if digest is not None and digest != _digest(found):
        return {}, "they do not match their digest"
    return found, ""


def aside(step_folder: Path) -> Path:
    """Returns the place of figures that were set aside."""
    return step_folder / f"damaged-{FIGURES}"


def _digest(figures: Mapping[str, float]) -> str:
    return files.digest({name: float(value) for name, value in figures.items()})


def _was_evaluated(step_folder: Path) -> bool:
    """Returns whether Orbax's list of a checkpoint's parts names its figures."""
    try:
        listed = json.loads((step_folder / "_CHECKPOINT_METADATA").read_bytes())
        return FIGURES in listed["item_handlers"]
    except (OSError, ValueError, KeyError, TypeError):
        return files.exists(step_folder / FIGURES)


def _was_committed(step_folder: Path) -> bool:
    """Returns whether Orbax's list of a checkpoint's parts says when it was committed."""
    try:
        listed = json.loads((step_folder / "_CHECKPOINT_METADATA").read_bytes())
        return listed["commit_timestamp_nsecs"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False
