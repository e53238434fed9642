"""Whole files of a folder, by the functions that a bucket can offer too."""

import os
from pathlib import Path

from pipeline.runtime import errors, files, flags


def of(text: str) -> Path:
    """Returns the path that a flag or a field of the config names."""
    return flags.path(text)


def read(path: Path) -> bytes:
    """Returns a file's content."""
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    """Replaces a file, whole."""
    files.write(path, content)


def create(path: Path, content: bytes) -> bool:
    """Writes a file if it is absent; returns False if it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with errors.writing(path.parent), open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def names(folder: Path) -> list[str]:
    """Returns the names of what lies in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of the files in a folder, by name; {} if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def exists(path: Path) -> bool:
    """Says whether there is such a file."""
    return path.exists()


def delete(path: Path) -> None:
    """Removes a file; it may be absent."""
    path.unlink(missing_ok=True)
