"""A trace of a few steps, for TensorBoard's profiler: `--profile`, or `touch WORKDIR/profile`.

The decision: process 0 alone looks for the file and traces itself and its devices. All processes
run the same program, so one shows what they do, and nothing need be agreed on.
"""

from collections.abc import Callable
from pathlib import Path

import jax

STEPS = 5


class Tracing:
    """Traces `STEPS` steps whenever it finds the file, which it removes."""

    def __init__(self, workdir: Path, *, wanted: bool, active: bool, note: Callable[[str], None]):
        """Does nothing yet, and never anything where it isn't active.

        Args:
            workdir: of the run, where the file is looked for; the trace goes to its TensorBoard.
            wanted: the first look starts a trace, also without the file.
            active: on one process alone.
            note: tells the user.
        """
        self._file, self._folder = workdir / "profile", workdir / "tensorboard"
        self._wanted, self._active, self._note = wanted, active, note
        self._until = 0  # the step that ends the trace; 0: none is under way

    def look(self, at: int) -> None:
        """Starts a trace behind step `at` if one is asked for; to be called now and then."""
        if self._active and not self._until and (self._wanted or self._file.exists()):
            self._wanted = False
            self._file.unlink(missing_ok=True)
            jax.profiler.start_trace(self._folder)
            self._until = at + STEPS

    def after(self, at: int, results: object) -> None:
        """Ends the trace once step `at`, whose `results` are waited for, was its last."""
        if self._until and at >= self._until:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes the trace that is under way, if any."""
        if self._until:
            jax.profiler.stop_trace()
            self._note(f"{STEPS} steps are traced: {self._folder / 'plugins' / 'profile'}")
            self._until = 0
