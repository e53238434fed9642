"""The faults that chaos does to a run: each has a name, an act, and the ends that it may cause.

A fault of `ENDING` ends the processes, with one of its exit codes. One of `HARMLESS` must not
disturb them. One of `RESTING` is done while no process runs, and the next start must cope with it
or refuse in one line; then the fault is taken back, as a user would from a copy.
"""

import contextlib
import random
import re
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

LOST = (75, 1, -6, -9)  # of processes of which one was killed


class Fault(NamedTuple):
    """What is done to a run, and how its processes may end; codes are () if they must go on."""

    name: str
    act: Callable[[Any, list, random.Random], Any]
    codes: tuple[int, ...] = ()
    early: bool = False  # done at once, also before the processes have found each other


def _signal(number: signal.Signals) -> Callable:
    def act(run, group, draw):
        victim = draw.choice(group)
        # A signal that arrives before its handler is installed kills, and is no stop request.
        if number != signal.SIGKILL:
            victim.wait_until_it_handles(number)
        victim.send_signal(number)

    return act


def unable_to_write(run, group, draw):
    """From now on one process can write no file longer than 4 kB, as on a disk that is full."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        victim = draw.choice(group).pid
        resource.prlimit(victim, resource.RLIMIT_FSIZE, (2**12, resource.RLIM_INFINITY))


def _removed(name: str) -> Callable:
    def act(run, group, draw):
        """Moves a folder of the run away from under its processes; `restore` moves it back."""
        place = run.workdir / name
        if place.is_dir():
            place.rename(run.workdir.with_name(f"{name}-kept"))

    return act


def stranger(run, group, draw):
    """Says nonsense, or nothing, to every port on which process 0 listens."""
    said = draw.choice((b"", b"1\n", b"[" * 60_000, b"x" * 1_000_000, b"GET / HTTP/1.1\r\n\r\n"))
    for port in _listening(group[0].pid):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
                caller.settimeout(1)
                caller.sendall(said)
                caller.recv(1)
        except OSError:
            pass  # it hung up, as it should


def _listening(pid: int) -> list[int]:
    """Returns the ports on which a process listens; none if it has ended."""
    try:
        links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()]
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return []
    own = {found[1] for link in links if (found := re.match(r"socket:\[(\d+)\]", link))}
    fields = [line.split() for line in lines]
    return [int(f[1].split(":")[1], 16) for f in fields if f[3] == "0A" and f[9] in own]


def second_start(run, group, draw):
    """Starts the run again while it runs: one of the two must be refused, and lose nothing."""
    second = run.start(draw.choice(((1, 1), (2, 1))))
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for refused, other in ((second, group), (group, second)):
            if all(process.poll() is not None for process in refused):
                found = {process.returncode for process in refused}
                # The first may have ended meanwhile; then the second is the run.
                if refused is group and found <= {0}:
                    return second
                # After the first has completed, the second finds nothing left to do.
                if refused is second and found == {0}:
                    return group
                assert found == {2}, [process.output[-1500:] for process in refused]
                assert any("error: " in process.output for process in refused)
                return other
        time.sleep(0.02)
    raise AssertionError([process.output[-1500:] for process in (*group, *second)])


def flipped_byte(run, draw):
    """Flips a bit of one file of the workdir or of the cache; returns what takes it back."""
    places = [path for top in (run.workdir, run.cache) for path in sorted(top.rglob("*"))]
    places = [path for path in places if path.is_file() and path.stat().st_size]
    if not places:
        return None
    path = draw.choice(places)
    content = path.read_bytes()
    place = draw.randrange(len(content))
    path.write_bytes(
        content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    )
    run.hurt_points |= "tfevents" in path.name
    return path, lambda: path.write_bytes(content)


def removed_checkpoints(run, draw):
    """Moves the folder of checkpoints away; returns what takes it back."""
    folder = run.workdir / "checkpoints"
    if not run.checkpoint():
        return None
    kept = folder.rename(run.workdir.with_name("checkpoints-kept"))

    def restore():
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)

    return folder, restore


ENDING = (
    *(
        Fault(number.name, _signal(number), codes)
        for number, codes in (
            *((number, (75,)) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)),
            (signal.SIGINT, (130,)),
            (signal.SIGKILL, LOST),
        )
    ),
    Fault("SIGKILL before they connect", _signal(signal.SIGKILL), LOST, early=True),
    Fault("one process cannot write", unable_to_write, (1,)),
    Fault("checkpoints removed under it", _removed("checkpoints"), (1, 2)),
)
HARMLESS = (Fault("stranger on the port", stranger), Fault("second start", second_start))
RESTING = {"flipped byte": flipped_byte, "checkpoints removed": removed_checkpoints}
