"""The file of figures that `--json` names, of every command that measures or plans."""

import json
from pathlib import Path
from typing import Any

from pipeline.runtime import files
from pipeline.runtime.storage import faults


def write(file: Path, figures: Any) -> None:
    """Writes the figures whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the text names the repair.
    """
    text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    with faults.writing(file.parent), files.replacing(file) as opened:
        opened.write(text.encode())
