"""The file of figures that `--json` names, of every command that measures or plans."""

import json
from pathlib import Path
from typing import Any

from pipeline.runtime import files


def write(file: Path, figures: Any) -> None:
    """Writes the figures whole or not at all; the file's folder is made if it is missing.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the text names the repair.
    """
    files.write(file, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
