"""One process for PDFs, as the server sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any, BinaryIO

import numpy as np

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.packing import layer_of
from inference_server.tasks.documents.pdf.wire import MEMORY_STATUS, PIECE_BYTES, Cut, exactly, frame, read_head, send
from inference_server.tasks.documents.values import Page, TextLayer

_MODULE = "inference_server.tasks.documents.pdf.worker"
# What the interpreter needs where it lies at an odd place; nothing that the server was given is told, its secrets least of all.
_PASSED_ON = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL"),
    *("PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"),
)
# Beside those of a page that waits for something itself.
_AWAY = 19
_ENDING_SECONDS = 5.0
_COLOURS = 3
# Bytes of the polygons of a text layer: more than the characters come to that are read.
_MOST_LAYER_BYTES = 2**26
# What pdfium counts at the most.
_MOST_PAGES = 0xFFFFF
# Of an error's message, and the limits that it may name.
_MOST_CHARACTERS = 1000
_LIMITS = frozenset({"page_pixels"})


class Reason(StrEnum):
    """Why a process ended."""

    # It would have taken more memory than it may.
    MEMORY = "memory"
    # By itself: a file that pdfium cannot bear.
    CRASHED = "crashed"
    # By somebody else, such as the kernel where memory has run out.
    KILLED = "killed"
    # What it did took too long, or nobody waits for it any longer.
    GIVEN_UP = "given_up"
    # It did what it was asked for, so slowly that others had to go before it.
    SLOW = "slow"
    # It has done enough, or keeps much memory.
    WORN = "worn"
    # It answers what no such process answers.
    ASTRAY = "astray"
    # Before it was ready for anything.
    NOT_STARTED = "not_started"
    # The server leaves.
    CLOSED = "closed"


class Ended(Exception):
    """A process ended while it was waited for."""

    def __init__(self, reason: Reason, *, is_fresh: bool) -> None:
        """`is_fresh`: whether it had done nothing for any other document."""
        super().__init__(reason)
        self.reason = reason
        self.is_fresh = is_fresh


class PdfProcess:
    """Used by one thread at a time; `kill` by any, which ends what that thread waits for."""

    def __init__(self, *, most_bytes: int) -> None:
        """Start it, with so many bytes of memory at the most; raises `OSError` where the system has no room for it."""
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-s", "-P", "-m", _MODULE, str(theirs.fileno()), str(most_bytes)]
        quiet = subprocess.DEVNULL
        try:
            with theirs:
                # Why it cannot start is told where the server tells its own errors; later nothing is, for it may be of a document.
                self._process = subprocess.Popen(  # noqa: S603
                    command, stdin=quiet, stdout=quiet, cwd="/", env=_environment(), pass_fds=(theirs.fileno(),)
                )
        except BaseException:
            self._channel.close()
            raise
        self._stream: BinaryIO = self._channel.makefile("rb")
        self._most_bytes = most_bytes
        self._documents = 0
        self._is_ready = False
        # Whether its last answer was read to its end.
        self.is_settled = True
        self._reason: Reason | None = None
        # Whose file is open in it.
        self.document: object | None = None
        self.works = 0
        # Bytes of memory that it had after its last work.
        self.resident = 0
        weakref.finalize(self, _end, self._process, self._channel)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is of no more use."""
        return self._reason is not None or self._process.poll() is not None

    def open(self, document: object, content: bytes, password: str) -> int:
        """Open a file in the place of the one before; returns how many pages it has. Raises `InvalidDocument` and `Ended`."""
        self.document = None
        self._documents += 1
        pages = self._asked({"do": "open", "password": password}, content)[0].get("pages")
        if not isinstance(pages, int) or not 0 <= pages <= _MOST_PAGES:
            raise self._astray()
        self.document = document
        return pages

    def page(self, index: int, *, mode: str, dpi: int, lowest_dpi: int, most_pixels: int) -> Page | TextLayer:
        """A page of the open file, from 0. Raises `InvalidDocument` and `Ended`."""
        request = {"do": "page", "index": index, "mode": mode, "dpi": dpi, "lowest_dpi": lowest_dpi, "most_pixels": most_pixels}
        head, size = self._asked(request)
        try:
            if "layer" in head and size <= _MOST_LAYER_BYTES:
                layer = layer_of(head["layer"], exactly(self._stream, size))
                self.is_settled = True
                return layer
            height, width = head["picture"]
            if size != height * width * _COLOURS or height < 1 or not 1 <= width <= most_pixels // height:
                raise ValueError
            return self._picture(height, width)
        except Cut as cut:
            raise self._ended() from cut
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            raise self._astray() from error

    def lay_over(self, pages: BinaryIO, size: int, write: Callable[[bytes], object]) -> None:
        """Lay text over the open file: `pages` are frames, so many bytes. Raises `InvalidDocument`, `Ended` and what `write` raises."""
        self._begin({"do": "overlay"}, size)
        while piece := pages.read(PIECE_BYTES):
            self._send(piece)
        written = 0
        while True:
            head, size = self._answer()
            if "piece" not in head:
                return
            written += size
            if size > PIECE_BYTES:
                raise self._astray()
            if written > self._most_bytes:
                self.kill(Reason.MEMORY)
                raise self._ended()
            body = self._body(size)
            try:
                write(body)
            except BaseException:
                # As where the disk is full: it answers well, and nobody takes what it answers.
                self.kill(Reason.GIVEN_UP)
                raise

    def drop(self) -> None:
        """Have it free its file; nothing is waited for."""
        self.document = None
        with suppress(Cut):  # who uses it next is told
            send(self._channel, {"do": "drop"})

    def yield_to_others(self) -> None:
        """Let whatever else wants a core go first, from now on."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, _AWAY)

    def kill(self, reason: Reason) -> None:
        """End it at once."""
        if self._reason is None:
            self._reason = reason
        self._process.kill()
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def reaped(self) -> Reason:
        """Kill it where it has not ended, and tell why it did; blocks for as long as the kernel takes. Its socket is closed."""
        with suppress(subprocess.TimeoutExpired):
            # It may have ended by itself and not yet be seen to.
            self._process.wait(_ENDING_SECONDS if self._reason is None else 0)
        if self._process.poll() is None:
            self.kill(Reason.ASTRAY)
            self._process.wait()
        self._stream.close()
        self._channel.close()
        return self._reason or _REASONS.get(self._process.returncode, Reason.CRASHED)

    def _asked(self, head: Mapping[str, Any], body: bytes = b"") -> tuple[dict[str, Any], int]:
        self._begin(head, len(body))
        self._send(body)
        return self._answer()

    def _begin(self, head: Mapping[str, Any], size: int) -> None:
        self._await_ready()
        self.works += 1
        self.is_settled = False
        self._send(frame(head, size))

    def _send(self, content: bytes) -> None:
        try:
            self._channel.sendall(content)
        except OSError as error:
            raise self._ended() from error

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        try:
            read_head(self._stream)
        except Cut as cut:
            self._reason = self._reason or Reason.NOT_STARTED
            raise self._ended() from cut
        self._is_ready = True

    def _answer(self) -> tuple[dict[str, Any], int]:
        try:
            head, size = read_head(self._stream)
        except Cut as cut:
            raise self._ended() from cut
        resident = head.get("resident")
        self.resident = resident if isinstance(resident, int) else 0
        self.is_settled = size == 0 and "piece" not in head
        if "refused" in head:
            limit = head.get("limit")
            raise InvalidDocument(str(head["refused"])[:_MOST_CHARACTERS], limit=limit if limit in _LIMITS else "")
        if "defect" in head:
            raise RuntimeError(f"a process for PDFs has a defect: {str(head['defect'])[:_MOST_CHARACTERS]}")
        return head, size

    def _picture(self, height: int, width: int) -> Page:
        page: Page = np.empty((height, width, _COLOURS), np.uint8)
        taken = self._stream.readinto(page.data.cast("B"))  # type: ignore[attr-defined]
        if taken < page.nbytes:
            raise self._ended()
        self.is_settled = True
        return page

    def _body(self, size: int) -> bytes:
        try:
            return exactly(self._stream, size)
        except Cut as cut:
            raise self._ended() from cut

    def _ended(self) -> Ended:
        return Ended(self.reaped(), is_fresh=self._documents <= 1)

    def _astray(self) -> Ended:
        self.kill(Reason.ASTRAY)
        return self._ended()


# pdfium aborts where it is given no memory: a system's own limit may be met before the process has looked at what it uses. What it finds
# wrong with itself ends it by other signals.
_REASONS = {MEMORY_STATUS: Reason.MEMORY, -signal.SIGABRT: Reason.MEMORY, -signal.SIGKILL: Reason.KILLED}


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # The same modules, wherever the server has them from, which may be told from its folder. One process has one thread that computes.
    return passed_on | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "OPENBLAS_NUM_THREADS": "1"}


def _end(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    """For whoever forgot it: it ends by itself when its socket does, and is waited for, so that nothing is left of it."""
    channel.close()
    if process.poll() is None:
        process.kill()
        process.wait()
