"""A lease on a folder: one run writes it, and a second start is refused.

A lease is a file `.lease-<n>` that is created only if it is missing. So one of several starts wins,
on any file system, without locks and without renaming. The holder rewrites its file every few
seconds. Its own machine sees at once whether it lives, others see it by a file that changes. If the
holder is dead, a start takes over by creating `.lease-<n+1>`. A holder that finds a higher number
was suspended for too long, and leaves without writing.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.runtime import errors
from pipeline.runtime.workdir import lease_files
from pipeline.runtime.workdir.lease_files import name_of

LOOK_SECONDS = 0.5


class Lease:
    """A lease that this process holds.

    Attributes:
        on_lost: receives a line if another run has the folder, so that this process may not write
            any more. It must end the process: `check` does not return before it has.
        leaving: says whether this run was asked to stop. Another start then waits for its end.
    """

    def __init__(self, files: Any, number: int, note: dict[str, Any], machine: Any):
        """Wraps a lease that was just created.

        Args:
            files: from `lease_objects.of`.
            number: of the lease.
            note: its content.
            machine: as `liveness.Machine`.
        """
        self.on_lost: Callable[[str], object] = lambda text: None
        self.leaving: Callable[[], bool] = lambda: False
        self._files, self._number, self._note, self._machine = files, number, note, machine
        self._beats, self._beaten = 0, machine.time()
        self._lock, self._closed = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Starts the thread that keeps the lease."""
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def check(self) -> None:
        """Returns if this process may write; reads a clock unless it was just suspended."""
        if self._machine.time() - self._beaten > self._files.patience_seconds / 2:
            self.beat()
        with self._lock:  # a thread that finds the lease lost keeps it until the process ends
            pass

    def beat(self) -> None:
        """Shows that this process lives, and sees whether it still holds the lease."""
        # A full disk, or storage out of reach, ends no run; only another holder does.
        with self._lock, contextlib.suppress(OSError):
            if not self._closed.is_set() and (lost := self._renew()):
                self.on_lost(f"{self._files} {lost}: this one leaves without writing any more")

    def release(self) -> None:
        """Ends the lease, so that another run may start at once."""
        with self._lock, contextlib.suppress(OSError):
            self._closed.set()
            name = name_of(self._number)
            if lease_files.parsed(self._files.read(name)).get("token") == self._note["token"]:
                self._files.delete(name)

    def _renew(self) -> str:
        """Rewrites the file; returns why the lease is lost, or ""."""
        began, number = self._machine.time(), self._number
        if newer := [found for found in lease_files.numbers(self._files) if found > number]:
            holder = lease_files.holder(lease_files.parsed(self._files.read(name_of(newer[-1]))))
            return f"was taken by {holder} while this run was suspended"
        self._beats += 1
        content = lease_files.content(self._note, beats=self._beats, leaving=self.leaving())
        if not self._files.update(name_of(number), content, self._note["token"]):
            # Somebody removed the file. If it was there a moment ago, no run can have taken it.
            recent = began - self._beaten < self._files.patience_seconds / 2
            taken = lease_files.numbers(self._files) or not recent
            if taken or not self._files.create(name_of(number), content):
                return "no longer belongs to this run, whose lease was removed"
        self._beaten = began
        return ""

    def _watch(self) -> None:
        while not self._closed.wait(self._files.beat_seconds):
            self.beat()


def take(
    files: Any, *, leaving: Callable[[], bool], note: Callable[[str], None], machine: Any
) -> Lease | None:
    """Returns the lease as soon as nobody else holds it; its thread is not started yet.

    Args:
        files: from `lease_objects.of`.
        leaving: says whether this run was asked to stop; the result is then None.
        note: shows a line to the user.
        machine: as `liveness.Machine`.

    Raises:
        InputError: another run holds it; nothing was written.
        OSError: the folder cannot be written.
    """
    mine: dict[str, Any] = {"token": secrets.token_hex(8), "folder": files.identity}
    mine |= machine.identity()
    while not leaving():
        numbers = lease_files.numbers(files)
        last = numbers[-1] if numbers else 0
        dead = _dead(files, last, leaving=leaving, note=note, machine=machine) if last else None
        if last and dead is None:
            machine.sleep(LOOK_SECONDS)
            continue  # it was released, or this run shall stop
        mine["since"] = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        content = lease_files.content(mine, beats=0, leaving=False)
        if not files.create(name_of(last + 1), content):
            continue  # another start was faster
        lease = Lease(files, last + 1, mine, machine)
        # Other starts may have come and gone meanwhile, and one may hold another number.
        unknown = set(lease_files.numbers(files)) - {*numbers, last + 1}
        if unknown or (last and files.read(name_of(last)) not in (None, dead)):
            lease.release()
            continue
        for number in numbers:
            files.delete(name_of(number))
        lease.leaving = leaving
        return lease
    return None


def _dead(
    files: Any,
    number: int,
    *,
    leaving: Callable[[], bool],
    note: Callable[[str], None],
    machine: Any,
) -> bytes | None:
    """Returns the lease of a dead holder; None if it is gone by now, or this run shall stop.

    Raises:
        InputError: the holder lives.
    """
    patience = files.patience_seconds
    seen, since = files.read(name_of(number)), machine.time()
    changed = told = False
    while not leaving():
        now = machine.time()  # precedes the reading, in case that this process is suspended here
        if (content := files.read(name_of(number))) is None:
            break
        if content != seen:
            seen, since, changed = content, machine.time(), True
        found = lease_files.parsed(content)
        holder, is_leaving = lease_files.holder(found), found.get("leaving")
        # In a copy of a run's folder the holder of the original means nothing.
        lives = machine.lives(found) if found.get("folder") == files.identity else None
        if lives is False or now - since > patience:
            return content
        if (lives or changed) and not is_leaving:
            raise errors.InputError(
                f"{files} is in use by {holder}: wait for its end, or choose another --workdir"
            )
        if not told:
            told = True
            wait = "until it leaves" if is_leaving else f"{patience:.0f} s for a sign of it"
            note(f"{files} is in use by {holder}: waiting {wait}.")
        machine.sleep(LOOK_SECONDS)
    return None
