"""What lies in a folder of shards, on this machine or in a bucket."""

import os
from pathlib import Path
from typing import Any

from pipeline.datasets.shards import manifest
from pipeline.runtime import files
from pipeline.runtime.storage import places


def names(folder: Path) -> list[str]:
    """Returns the names in a folder, none if there is no such folder."""
    try:
        return files.names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of the files in a folder, by name; {} if there is no such folder."""
    try:
        if not places.is_bucket(folder):
            with os.scandir(folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        from pipeline.runtime.storage import requests

        bucket: Any = folder
        with requests.asking(folder):
            found = bucket.store.ls(str(folder), detail=True)
        return {one["name"].rpartition("/")[2]: one["size"] for one in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def check_there(folder: Path, whole: manifest.Manifest) -> None:
    """Raises an InputError if a shard is missing or has another size than it had."""
    there = sizes(folder)
    for part in whole.parts.values():
        for file in part.shards:
            if file.file not in there:
                raise manifest.missing(folder, file)
            if there[file.file] != file.bytes:
                raise manifest.altered(folder, file)
