"""What a process for PDFs may take, and its end when it takes more, or when its server is gone."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from inference_server.tasks.documents.pdf.wire import MEMORY_STATUS

_STATM = Path("/proc/self/statm")
_LOOK_MILLISECONDS = 20
# Memory that is asked for, and not used: libraries are mapped, and what pdfium asks for is more than it fills. A request that the kernel
# turns down ends as an incomplete picture, so that this is for memory that grows faster than it is looked at.
_ADDRESSES, _MORE_ADDRESSES = 2, 2**30
_FILES = 64


class Watch:
    """Ends the process at once, whatever its main thread does: pdfium lets other threads go on."""

    def __init__(self, channel: socket.socket, most_bytes: int) -> None:
        """`channel`: to the server, whose end it tells. `most_bytes`: of memory that is used."""
        self._channel = channel
        self._most_pages = most_bytes // resource.getpagesize()
        self._works = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """While something is done. What waits for work sees by itself that the server is gone."""
        self._works.set()
        try:
            yield
        finally:
            self._works.clear()

    def _look(self) -> None:
        poll = select.poll()
        poll.register(self._channel, 0)
        while True:
            self._works.wait()
            if poll.poll(_LOOK_MILLISECONDS):
                os._exit(0)
            if resident_pages() > self._most_pages:
                os._exit(MEMORY_STATUS)


def resident_pages() -> int:
    """Pages of memory that the process uses; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def confine(most_bytes: int) -> None:
    """Give up what the work does not need: files that are written, images of memory, further processes and threads.

    Call it when all threads have begun.
    """
    for kind, most in (
        (resource.RLIMIT_AS, _ADDRESSES * most_bytes + _MORE_ADDRESSES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        hardest = resource.getrlimit(kind)[1]
        most = most if hardest == resource.RLIM_INFINITY else min(most, hardest)
        with contextlib.suppress(OSError, ValueError):  # a system that does not have it
            resource.setrlimit(kind, (most, most))
    # What is imported later cannot be kept beside its source.
    sys.dont_write_bytecode = True
    # What is sent to the whole group is the server's to heed: it goes on for a while, and ends its processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Where memory runs out all the same, the kernel is to end this process, and not the server.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
