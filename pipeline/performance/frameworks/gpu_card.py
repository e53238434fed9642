"""What the figures of a GPU node were taken with: card, driver, commit and versions."""

import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pipeline.runtime import errors, processor

ANSWER_SECONDS = 30.0  # a driver that hangs must not stop the command
ROOT = Path(__file__).parents[3]
QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


def cards() -> list[str]:
    """Returns "name, driver, memory" of each NVIDIA GPU.

    Raises:
        InputError: none answers.
    """
    found = _said(QUERY).splitlines()
    if not found:
        raise errors.InputError(
            "no NVIDIA GPU answers nvidia-smi: run this on a GPU node, or give --cpu for a trial "
            "on CPUs"
        )
    return found


def about(found: Sequence[str]) -> dict[str, str]:
    """Returns what stands above the figures; `found` are the cards, none for a trial."""
    names = sorted({card.partition(",")[0] for card in found})
    drivers = sorted({card.split(",")[1].strip() for card in found})
    changed = _said(("git", "status", "--porcelain", "--untracked-files=no"))
    return {
        "card": f"{len(found)} × {' and '.join(names)}" if found else "none: a trial on CPUs",
        "driver": ", ".join(drivers) or "none",
        "host": processor.name(),
        "commit": (_said(("git", "rev-parse", "HEAD")) or "unknown")
        + (", with changes" if changed else ""),
        "versions": ", ".join(f"{name} {_version(name)}" for name in ("jax", "torch")),
    }


def _said(command: Sequence[str]) -> str:
    """Returns what the command prints; nothing if it fails."""
    options = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": ANSWER_SECONDS}
    try:
        done = subprocess.run(command, check=True, **options)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
