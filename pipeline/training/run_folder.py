"""The folder of a run: one run at a time writes it, and what is removed from it is noticed."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from pipeline.mesh import agreement
from pipeline.runtime import errors, exit_codes, peers, run_config, signals
from pipeline.runtime.storage import faults, places
from pipeline.runtime.workdir import (
    contents,
    lease,
    lease_files,
    lease_objects,
    liveness,
    saved_config,
)
from pipeline.training import setup

LOOK_SECONDS = 1.0  # between two lists of the checkpoints, unless something is saved
BUCKET_SECONDS = 60.0  # the same in a bucket, where a list is a request
WAIT_SECONDS = 3600.0  # how long other processes wait for process 0, which may wait for a lease


class Folder:
    """The folder of a run, which this run may write.

    Attributes:
        path: of the folder.
        checkpoints: the path of the folder of its checkpoints.
    """

    def __init__(self, path: Path, held: lease.Lease | None = None, *, marked: bool = False):
        """Wraps the folder; `held` is its lease, None on every process but 0."""
        self.path, self.checkpoints = path, path / "checkpoints"
        self._held, self._marked = held, marked
        self._in_bucket = places.is_bucket(path)
        self._config = str(path / saved_config.NAME)
        self._kept = False
        self._pause = BUCKET_SECONDS if self._in_bucket else LOOK_SECONDS
        self._looked = -self._pause
        self._saved: int | None = None

    def keep(self, config: Any) -> None:
        """Writes the config, on process 0."""
        if self._held is not None:
            self._held.check()
            run_config.save(config, self.path)
            self._kept = True

    def check_kept(self) -> None:
        """Raises an InputError if the folder was removed after `keep`."""
        if self._kept and not saved_config.exists(self.path):
            raise _removed(self.path)

    def check(self, *, now: bool = False) -> None:
        """Returns if this run may write its folder; must precede everything that it writes.

        Args:
            now: whether to list the checkpoints, even if they were listed just now.

        Raises:
            InputError: the folder was removed, or its checkpoints were.
        """
        if self._held is None:
            return
        self._held.check()
        # A removed folder is seen at every step: what is written might bring it back.
        recent = time.monotonic() - self._looked < self._pause
        if not now and recent and (self._in_bucket or os.path.lexists(self._config)):
            return
        self._looked = time.monotonic()
        self.check_kept()
        steps = contents.committed(self.path, marked=self._marked)
        if steps is None or (self._saved is not None and not steps):
            raise _removed(self.checkpoints)
        if steps and steps[-1] != self._saved:
            self._saved = steps[-1]
            contents.note_saved(self.path, self._saved)


@contextlib.contextmanager
def held(
    workdir: Path, ready: setup.Setup, *, stop: signals.StopRequest, others: peers.Peers
) -> Iterator[Folder]:
    """Holds the run's folder for the length of the block; process 0 makes it if it is missing.

    If this run is asked to stop while it waits for another to end, it does not hold the folder: the
    block must obey `stop` before it writes.

    Args:
        workdir: the run's folder.
        ready: the run.
        stop: this process's stop request.
        others: the other processes. They wait until process 0 has the folder.

    Raises:
        InputError: another run trains there, or the folder holds something else; nothing was
            written.
        OSError: the folder cannot be written.
    """
    refused = _refusal(ready, workdir)
    if jax.process_index() > 0:
        if refused:
            raise refused
        agreement.wait_patiently("lease", seconds=WAIT_SECONDS)
        yield Folder(workdir)
        return

    def leave(text: str) -> None:
        errors.say(f"error: {text}")
        others.fail(text, exit_codes.MISTAKE)  # which no launcher repeats
        os._exit(exit_codes.MISTAKE)

    with lease_files.made(workdir):
        with faults.writing(workdir):
            found = lease.take(
                lease_objects.of(workdir),
                leaving=lambda: stop.signal is not None,
                note=errors.say,
                machine=liveness.Machine(),
            )
        if found is not None:
            found.on_lost = leave
            found.start()
        agreement.wait_patiently("lease", seconds=WAIT_SECONDS)
        folder = Folder(workdir, found, marked=ready.given.checkpoint.atomicity == "commit_file")
        try:
            if refused:
                raise refused
            yield folder
        except OSError:  # of which a removed folder is the better reason; launchers don't repeat it
            folder.check_kept()
            raise
        finally:
            if found is not None:
                found.release()


def _refusal(ready: setup.Setup, workdir: Path) -> errors.InputError | None:
    """Returns why the folder holds no run of this config.

    If a lease is there, config.json may be that of a run which began only now. Then whoever holds
    the lease is the better reason, so this one waits until the lease is taken.

    Raises:
        InputError: the same reason, if nobody has a lease.
    """
    try:
        run_config.check_against_run(ready.given, workdir)
    except errors.InputError as error:
        if not workdir.is_dir() or not lease_files.numbers(lease_objects.of(workdir)):
            raise
        return error
    return None


def _removed(path: Path) -> errors.InputError:
    return errors.InputError(
        f"{path} was removed or emptied while this run trains: nothing more is written"
    )
