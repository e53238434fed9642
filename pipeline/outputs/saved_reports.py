"""Reports as they lie in a run's folder: maybe damaged, or made by somebody else.

A run may come from anywhere. So its report can name only pictures that lie beside it, and every
value is checked before it is used.
"""

import io
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.evals.scores import metrics

LARGEST = 64 * 2**20  # bytes of a file that is read
# Of metrics.json. Version 1 had the quick scores of disentanglement under the plain names, which
# belong to the protocol of Locatello et al. since version 2.
FORMAT = 2
KINDS = {  # what a report must have, and of which type
    "step": int, "examples": int, "evaluations": list, "figures": dict, "files": dict,
    "left_out": dict,
}  # fmt: skip


class Damaged(ValueError):
    """A report that cannot be used; the text says why, in one line."""


def read(folder: Path, run: Path | None = None) -> dict[str, Any] | None:
    """Returns the folder's metrics.json; None if there is none.

    A figure that is not finite is None. Names of files that are no picture beside metrics.json are
    left out. Scores of an older format have their names of today, and count as not evaluated.

    Args:
        folder: RUN/reports/<step>/, or a folder given by --out.
        run: the workdir, in which all files must lie; None: the folder itself.

    Raises:
        Damaged: it is cut, no JSON, or something in it has the wrong type.
    """
    path, run = folder / "metrics.json", run or folder
    if not path.exists() and not path.is_symlink():
        return None
    if not _inside(path, run):
        raise Damaged("it is no file of this run")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(" ".join(str(error).split())[:200] or type(error).__name__) from None
    _check(found)
    known = {name: _finite(value) for name, value in found["figures"].items()}
    pictures = {
        name: file
        for name, file in found["files"].items()
        if picture(folder, file, run) is not None
    }
    if found.get("format", 1) < FORMAT:
        known = metrics.renamed(known)
        evaluated = [name for name in found["evaluations"] if name != "disentanglement"]
        found = {**found, "evaluations": evaluated}
    return {**found, "figures": known, "files": pictures}


def picture(folder: Path, name: Any, run: Path | None = None) -> bytes | None:
    """Returns the content of a PNG or GIF beside metrics.json; None if `name` is anything else.

    Args:
        folder: of the report.
        name: as metrics.json has it: a path that leaves the folder is ignored.
        run: the workdir, in which the file must lie, also behind symbolic links.
    """
    if not isinstance(name, str) or Path(name).name != name or "\\" in name or "\0" in name:
        return None
    path = folder / name
    try:
        if not _inside(path, run or folder):
            return None
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a picture that would fill the memory
            Image.open(io.BytesIO(content), formats=("PNG", "GIF")).close()
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None
    return content


def _inside(path: Path, run: Path) -> bool:
    """Says whether the path leads to a file inside the run's folder that can be read whole."""
    try:
        real = path.resolve(strict=True)
        return (
            real.is_relative_to(run.resolve()) and real.is_file() and real.stat().st_size <= LARGEST
        )
    except (OSError, RuntimeError):  # a loop of links
        return False


def _check(found: Any) -> None:
    """Raises Damaged unless `found` has what a report has."""
    if not isinstance(found, dict):
        raise Damaged("it is no table")
    for name, kind in KINDS.items():
        if not isinstance(found.get(name), kind) or isinstance(found[name], bool):
            raise Damaged(f"{name!r} is missing or of the wrong type")
    if not all(isinstance(name, str) for name in found["evaluations"]):
        raise Damaged("'evaluations' are no names")
    if not isinstance(found.get("data", {}), Mapping):
        raise Damaged("'data' is of the wrong type")
    if type(found.get("format", 1)) is not int:
        raise Damaged("'format' is no number")
    for name, value in found["figures"].items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Damaged(f"the figure {name!r} is no number")


def _finite(value: float | None) -> float | None:
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None
