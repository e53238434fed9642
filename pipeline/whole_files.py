"""Small files that are whole or not there: a kill at any moment leaves the old one, or the new."""

import os
from pathlib import Path

from pipeline import errors


def write(path: Path, content: str | bytes) -> None:
    """Replaces the file `path`; its folder is made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with errors.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
