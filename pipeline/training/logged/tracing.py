"""A trace of a few steps, for TensorBoard's profiler: `--profile`, or `touch WORKDIR/profile`.

Only process 0 looks for the file; it traces itself and its devices. All processes run the same
program, so one of them shows what all do, and the processes need not agree on anything.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from pipeline.display import texts
from pipeline.runtime import files
from pipeline.runtime.storage import places

STEPS = 5
BUCKET_SECONDS = 30.0  # between two requests that look for the file in a bucket


class Tracing:
    """Traces `STEPS` steps, or a longer dispatch, when it finds the file, and removes the file."""

    def __init__(self, workdir: Path, *, wanted: bool, active: bool, note: Callable[[str], None]):
        """Does nothing yet; if it is not active, it never does anything.

        Args:
            workdir: the run's folder, which may hold the file; its `tensorboard` gets the trace.
            wanted: the first look starts a trace even without the file.
            active: true on only one process.
            note: shows the user a text.
        """
        self._file, self._folder = workdir / "profile", workdir / "tensorboard"
        self._wanted, self._active, self._note = wanted, active, note
        self._until = 0  # the step that ends the trace; 0: none is under way
        self._since = self._newest = 0  # the step before the trace, and the newest one in it
        self._looked = -BUCKET_SECONDS
        # The profiler writes only to folders. What it wrote is then sent to the bucket.
        self._in_bucket, self._local = places.is_bucket(workdir), self._folder

    def look(self, at: int) -> None:
        """Starts a trace after step `at` if one is requested; call it now and then."""
        if self._active and not self._until and (self._wanted or self._is_requested()):
            self._wanted = False
            self._file.unlink(missing_ok=True)
            if self._in_bucket:
                self._local = Path(tempfile.mkdtemp(prefix="trace-"))
            jax.profiler.start_trace(self._local)
            self._since, self._newest, self._until = at, at, at + STEPS

    def after(self, at: int, results: object) -> None:
        """Ends the trace if `at` has reached its last step; waits for `results` before."""
        self._newest = at
        if self._until and at >= self._until:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes the trace that is under way, if any."""
        if self._until:
            jax.profiler.stop_trace()
            self._send()
            traced, folder = self._newest - self._since, self._folder / "plugins" / "profile"
            self._note(f"traced {texts.counted(traced, 'step')}: {folder}")
            self._until = 0

    def _is_requested(self) -> bool:
        if not self._in_bucket:
            return self._file.exists()
        now = time.monotonic()
        if now - self._looked < BUCKET_SECONDS:
            return False
        self._looked = now
        return self._file.is_file()

    def _send(self) -> None:
        """Moves a trace from the local folder into the bucket."""
        if not self._in_bucket:
            return
        for path in self._local.rglob("*"):
            if path.is_file():
                files.write(self._folder / str(path.relative_to(self._local)), path.read_bytes())
        shutil.rmtree(self._local)
