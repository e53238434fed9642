"""How many points a run had written at each checkpoint, so that lost event files are noticed.

An event file that was emptied, cut between two records or removed looks like one that never had
more. So each checkpoint is preceded by a note of how many points there are up to its step.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.runtime import files

NAME = ".points.json"  # TensorBoard reads only files whose names contain "tfevents"
KEPT = 20  # of the newest steps


def write(folder: Path, step: int, points: int) -> None:
    """Notes that there are so many points up to a step.

    Raises:
        OSError: the note cannot be written.
    """
    before = {int(at): count for at, count in _read(folder).items() if int(at) < step}
    newest = sorted({**before, step: points}.items())[-KEPT:]
    counts = {str(at): count for at, count in newest}
    kept = {"points": counts, "digest": files.digest(counts)}
    files.write(folder / NAME, json.dumps(kept) + "\n")


def missing(folder: Path, step: int, points: int) -> int:
    """Returns how many points up to a step are missing, if that was noted; else 0."""
    return max(0, _read(folder).get(str(step), 0) - points)


def _read(folder: Path) -> dict[str, int]:
    """Returns the noted points by step; {} if there is no note, or a damaged one."""
    path = folder / NAME
    try:
        if files.is_odd(path):
            files.set_aside(path)
            return {}
        kept: Any = json.loads(path.read_bytes())
        counts = kept["points"]
        return counts if kept["digest"] == files.digest(counts) else {}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}
