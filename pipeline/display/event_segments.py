"""Event files in a bucket, where nothing is appended: segments, each one object, sent whole.

A segment is sent again with each flush until it has a megabyte. Then the next one begins, so that a
flush sends no more than that. TensorBoard reads segments in the order of their names.
"""

from typing import Any

from pipeline.display import event_files, event_records
from pipeline.runtime import files

SEGMENT_BYTES = 1 << 20


class Segments:
    """The records of one start, as tensorboardX's `RecordWriter` takes them."""

    def __init__(self, folder: Any):
        """Writes nothing yet; no other object has the names of these segments."""
        self._folder, self._stem = folder, event_files.next_path(folder).name
        self._number, self._is_made = 0, False
        self._records, self._is_sent = bytearray(), True

    def write(self, data: bytes) -> None:
        """Appends a record."""
        self._records += event_records.framed(data)
        self._is_sent = False

    def flush(self) -> None:
        """Returns when the store has everything that was written.

        Raises:
            OSError: the store failed; the next flush sends the same again.
        """
        if self._is_sent:
            return
        path, content = self._path(), bytes(self._records)
        # The first time it must be new: what another start wrote is never replaced.
        if self._is_made:
            path.write_bytes(content)
        while not self._is_made and not files.create(path, content):
            self._stem, self._number = event_files.next_path(self._folder).name, 0
            path = self._path()
        self._is_made = self._is_sent = True
        if len(content) >= SEGMENT_BYTES:
            self._number, self._is_made, self._records = self._number + 1, False, bytearray()

    def close(self) -> None:
        """Flushes."""
        self.flush()

    def _path(self) -> Any:
        return self._folder / f"{self._stem}.{self._number:06d}"
