"""Whether a process that left a note still lives, as far as this machine can tell."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOOT = "/proc/sys/kernel/random/boot_id"  # differs between machines, and after a reboot
MOUNTS = Path("/proc/self/mountinfo")


class Machine:
    """What a lease asks of this machine: who this process is, who lives, and the time."""

    def identity(self) -> dict[str, Any]:
        """Returns what identifies this process among those of all machines, for `lives`."""
        try:
            start = _stat(os.getpid())[1]
        except OSError:  # a system without /proc
            start = ""
        return {"host": socket.gethostname(), "pid": os.getpid(), "start": start, **_place()}

    def lives(self, note: Mapping[str, Any]) -> bool | None:
        """Says whether the process of a note lives; None if it can't be told from here.

        Args:
            note: from `identity` of some process, perhaps on another machine, perhaps damaged.
        """
        place, pid = _place(), note.get("pid")
        # A number means the same process only since the same boot, and in the same container.
        if not (all(place.values()) and place.items() <= note.items() and isinstance(pid, int)):
            return None
        return _lives(pid, note.get("start"))

    def time(self) -> float:
        """Returns seconds that go on while this process, or this machine, is suspended."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


def caches_files(folder: Path) -> bool:
    """Says whether the folder's file system may show an old content for about a minute.

    A file system outside the kernel does, such as gcsfuse. NFS asks its server when a file is
    opened.
    """
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
        real = str(folder.resolve())
    except OSError:
        return False
    # A line is: … mount point, options, optional fields, "-", type, source, options.
    found = [
        (len(words[4]), words[words.index("-") + 1])
        for words in mounts
        if "-" in words and f"{real}/".startswith(f"{words[4].rstrip('/')}/")
    ]
    return max(found, default=(0, ""))[1].startswith("fuse")


def _stat(pid: int) -> tuple[str, str]:
    """Returns a process's state, one letter, and when it started, in ticks since the boot."""
    # The name of the program, which may hold any character, ends with the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], fields[19]


def _lives(pid: int, start: Any) -> bool | None:
    try:
        state, found = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        # It has ended, or /proc hides the processes of other users.
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            return None
        return None
    except OSError:
        return None
    return found == start and state not in ("Z", "X")  # these have ended, and keep their number


def _place() -> dict[str, str]:
    try:
        boot, namespace = Path(BOOT).read_text().strip(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return {"boot": "", "namespace": ""}
    return {"boot": boot, "namespace": namespace}
