"""The event files of a run, or of each replica, which TensorBoard then shows as runs of their own.

A value with a row for each replica goes row by row into their files, and any other value into all.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.display import dashboards, tensorboard


class Writers:
    """One `tensorboard.Writer` for each replica; close it after use."""

    def __init__(self, runs: Sequence[tuple[Path, Any]], *, resume_step: int | None, active: bool):
        """Opens the files of each folder; `runs` are the replicas' folders and configs."""
        self._configs = [config for _, config in runs]
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            self.each = [
                opened.enter_context(
                    tensorboard.Writer(
                        folder / "tensorboard", resume_step=resume_step, active=active
                    )
                )
                for folder, _ in runs
            ]
            self._stack = opened.pop_all()

    def write(self, tag: str, value: Any, step: int) -> None:
        """Writes a value as `tensorboard.Writer.write` does; of several replicas [R, ...] is."""
        several = len(self.each) > 1 and isinstance(value, np.ndarray)
        for index, writer in enumerate(self.each):
            writer.write(tag, value[index] if several else value, step)

    def begin(self, names: Any) -> None:
        """Describes each run; `names` are those of its training metrics."""
        for writer, config in zip(self.each, self._configs, strict=True):
            writer.about(dashboards.of_run(config, names))

    def end(self) -> None:
        """Describes each run as complete."""
        for writer in self.each:
            writer.about(dashboards.of_end())

    def show(self) -> None:
        """Lets readers see what was written."""
        for writer in self.each:
            writer.show()

    def promise(self, step: int) -> None:
        """Flushes all files, and notes it; precedes the checkpoint of the step."""
        for writer in self.each:
            writer.promise(step)

    def close(self) -> None:
        """Closes all files."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Returns the writers themselves."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes all files, also when the block raised."""
        self._stack.__exit__(None, None, None)
