"""Records of tiles on local disk, so that what a slide's tiles hold together never lies in memory whole."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref

import numpy as np

from inference_server.tasks.slides import scratch


class Spill:
    """A file without a name in the temporary folder; it is gone with this object, or with the process."""

    def __init__(self, records: int) -> None:
        """`records`: numbers from 0 that may be put."""
        with scratch.taking_room():
            file, path = tempfile.mkstemp(prefix="lamina-spill-")
            os.unlink(path)  # noqa: PTH108 - the file must have no name from its first byte on
        self._file = file
        weakref.finalize(self, os.close, file)
        self._offsets = np.full(records, -1, np.int64)
        self._lengths = np.zeros(records, np.int64)
        self._end = 0
        self._turn = threading.Lock()

    def put(self, number: int, record: bytes) -> None:
        """Keep a record; from any thread. Raises `Unavailable` when the disk is full."""
        with self._turn:
            offset, self._end = self._end, self._end + len(record)
        with scratch.taking_room():
            if os.pwrite(self._file, record, offset) < len(record):
                raise OSError("short write")
        self._lengths[number] = len(record)
        self._offsets[number] = offset

    def get(self, number: int) -> bytes | None:
        """A record; None where there is none."""
        offset = int(self._offsets[number])
        return None if offset < 0 else os.pread(self._file, int(self._lengths[number]), offset)
