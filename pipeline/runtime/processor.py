"""The kind of processor of this machine."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def lines(*fields: str) -> list[str]:
    """Returns the lines of /proc/cpuinfo that begin with one of the fields, for every core.

    The list is empty if the file does not exist.
    """
    found = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    return [line for line in found if line.startswith(fields)]


def name() -> str:
    """Returns the processor's name, or that of its architecture if it has none."""
    names = [line.partition(":")[2].strip() for line in lines("model name")]
    return names[0] if names else platform.machine()
