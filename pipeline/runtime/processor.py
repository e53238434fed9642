"""What kind of processor this machine has."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def lines(*fields: str) -> list[str]:
    """Returns the lines that begin with one of the fields, of every core; none if unknown."""
    found = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    return [line for line in found if line.startswith(fields)]


def name() -> str:
    """Returns its name, or the architecture's if it has none."""
    names = [line.partition(":")[2].strip() for line in lines("model name")]
    return names[0] if names else platform.machine()
