"""TensorBoard event files: each tag has each step once, also after a crash and a resume.

Records are written in the caller's thread, with tensorboardX's record format and protocol buffers.
Its `SummaryWriter` isn't used: it hands events to a background thread, which a full disk ends
without an error, and its `flush` does not wait for the queue.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from pipeline.display import event_counts, event_files, event_records, event_segments, summaries
from pipeline.runtime.storage import faults, places

SHOW_SECONDS = 30.0  # between two flushes into a bucket that nothing but a reader needs


class Writer:
    """The event file of one start of a run; close it after use.

    Call `promise` before the checkpoint of the same step: a resumed run does not compute earlier
    points again. If the disk fails, the write, flush or close that meets the failure raises an
    `OSError`, and the writer cannot be used any more.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        resume_step: int | None,
        active: bool = True,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Removes points after the restored checkpoint, then opens a new file.

        Args:
          folder: holds the event files of all starts of this run.
          resume_step: step of the restored checkpoint; later points of earlier starts are removed.
            None means a start from the beginning, which removes all earlier points.
          active: False on every process but 0. Such a writer writes nothing but still checks the
            steps, so that a mistake stops all processes and not only the first.
          warn: is called with a text about each damaged event file; None: stderr.

        Raises:
          OSError: the folder cannot be read or written.
        """
        self._file: Any = None
        self._path: Any = None
        self._folder = Path(folder) if isinstance(folder, str) else folder
        self._in_bucket = places.is_bucket(self._folder)
        self._shown = time.monotonic()
        self._active = active
        self._last_step: dict[str, int] = {}
        self._step_on_disk: dict[str, int] = {}
        self._points = 0  # in all event files, without what describes the run as a whole
        last_kept = -1 if resume_step is None else resume_step
        self._first_step = last_kept + 1
        if not active:
            return
        # Old files are cleaned before the new one exists: `purge` reads every file of the folder.
        with faults.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            purged = event_files.purge(self._folder, last_kept, warn=warn)
            self._step_on_disk, self._points = purged
            if lost := event_counts.missing(self._folder, last_kept, self._points):
                (warn or event_files.say)(
                    f"{lost:,} points up to step {last_kept} are missing in {self._folder}: event "
                    "files were cut, emptied or removed"
                )
            if self._in_bucket:
                self._file = event_segments.Segments(self._folder)
            else:
                self._path = event_files.next_path(self._folder)
                self._file = event_records.tensorboardx().RecordWriter(str(self._path))
        protos = event_records.tensorboardx().proto.event_pb2
        self._append(protos.Event(file_version="brain.Event:2"))
        # A TensorBoard that is running forgets all points with step >= this one.
        start = protos.SessionLog(status=protos.SessionLog.START)
        self._append(protos.Event(step=self._first_step, session_log=start))
        self.flush()

    def write(self, tag: str, value: Any, step: int) -> None:
        """Writes a value; its type and shape decide where TensorBoard shows it.

        Args:
          tag: `figures` describes the part after the last slash, if it has a row.
          value: a number [], an array of finite numbers [N] (a histogram), an image
            [H, W, C], uint8 or float in [0, 1], an animation [T, H, W, C] uint8, or a
            text in Markdown; or a function that makes one of these, called only on process 0. If
            it returns None, nothing is written.
          step: greater than at the tag's last value.

        Raises:
          ValueError: an array of another shape.
          OSError: the disk failed.
        """
        if self._is_due(tag, step):
            made = value() if callable(value) else value
            if made is not None:
                self._append_value(summaries.described(summaries.value(tag, made), tag), step)
                self._points += 1

    def about(self, values: Iterable[Any]) -> None:
        """Writes the values of `dashboards` that describe the run, each tag once a start."""
        for value in values:
            if self._active and value.tag not in self._last_step:
                self._append_value(summaries.described(value, value.tag), self._first_step)
            self._last_step.setdefault(value.tag, self._first_step)

    def show(self) -> None:
        """Lets readers see what was written: at once, in a bucket at most every 30 seconds.

        Raises:
          OSError: the disk or the store failed.
        """
        if not self._in_bucket or time.monotonic() - self._shown >= SHOW_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Returns after everything written so far is on the disk (fsync), or in the bucket.

        Raises:
          OSError: the disk failed, or the file was removed.
        """
        if self._file is not None:
            with faults.writing(self._folder):
                self._file.flush()
                self._check_kept()
            self._shown = time.monotonic()

    def promise(self, step: int) -> None:
        """Flushes, and notes that all points up to `step` were written; precedes its checkpoint.

        Raises:
          OSError: as `flush`.
        """
        self.flush()
        if self._file is not None:
            event_counts.write(self._folder, step, self._points)

    def close(self) -> None:
        """Flushes and closes the file; only the first call does something."""
        file, self._file = self._file, None
        if file is not None:
            with faults.writing(self._folder), contextlib.closing(file):
                file.flush()
                self._check_kept()

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the file, also when the block raised."""
        self.close()

    def _is_due(self, tag: str, step: int) -> bool:
        """Checks the step on every process, and returns whether to write the value."""
        last = self._last_step.get(tag, -1)
        assert step > last, f"{tag} written at step {step} after step {last}"
        self._last_step[tag] = step
        # A resumed run may evaluate again at its checkpoint's step: the earlier point stays.
        return self._active and step > self._step_on_disk.get(tag, -1)

    def _check_kept(self) -> None:
        # A removed file takes everything that is written, and keeps nothing.
        if not self._in_bucket and not self._path.exists():
            raise OSError(
                f"{self._path} was removed while this run wrote it: the run ends, and the same "
                "command resumes from the checkpoints that are left"
            )

    def _append_value(self, value: Any, step: int) -> None:
        event = event_records.tensorboardx().proto.event_pb2.Event(step=int(step))
        event.summary.value.append(value)
        self._append(event)

    def _append(self, event: Any) -> None:
        assert self._file is not None, "written after close"
        event.wall_time = time.time()
        with faults.writing(self._folder):
            self._file.write(event.SerializeToString())
