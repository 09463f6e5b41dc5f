"""The processes for PDFs: which document is read in which of them, and what becomes of those that are lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import structlog

from inference_server.errors import Unavailable
from inference_server.tasks.documents.pdf.process import Ended, PdfProcess, Reason
from inference_server.threads import usable_cores

T = TypeVar("T")

_FEWEST, _MOST = 2, 4
# After so long a work gives its place up to others and goes on beside them, after them wherever a core is wanted.
ASIDE_SECONDS = 5.0
# What nobody waits for any longer may end by itself: most works take less than it takes to start a process anew.
_LEFT_SECONDS = 1.0
# What a process has done, and the share of its memory that it still has then, after which another takes its place; but not for what all
# have that have read a text layer.
_MOST_WORKS, _WORN_SHARE, _USUAL_BYTES = 1000, 4, 96 * 2**20
_LOOK_SECONDS = 0.1
_log = structlog.get_logger()


class Document(Protocol):
    """Whose file is read."""

    @property
    def turns(self) -> asyncio.Semaphore:
        """So many processes it may have at a time."""

    @property
    def is_closed(self) -> bool:
        """Whether nobody reads it any longer."""


class PdfProcesses:
    """As many as are set, started when they are needed, and as many again of which each has been at one work for long.

    One document has all of them but one at the most: a file that holds them leaves the others one.
    """

    def __init__(self, *, most: int = 0, most_bytes: int = 2**30, ended: Callable[[str], None] = lambda reason: None) -> None:
        """`most`: 0 for one a core, 2 to 4. `most_bytes`: of memory, each. `ended`: told why one ended."""
        self._most = most or min(max(usable_cores(), _FEWEST), _MOST)
        self.most_bytes = most_bytes
        self.most_of_one = max(1, self._most - 1)
        self._ended = ended
        self._permits = asyncio.Semaphore(self._most)
        self._idle: list[PdfProcess] = []
        self._alive: set[PdfProcess] = set()
        self._aside = 0
        self._left: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(2 * self._most + 1, thread_name_prefix="pdf")
        self._is_closed = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._alive)

    @property
    def pids(self) -> list[int]:
        """Their numbers."""
        return [process.pid for process in self._alive]

    @asynccontextmanager
    async def lease(self, document: Document) -> AsyncIterator[Lease]:
        """A place for works of a document, one after the other; others wait for theirs meanwhile."""
        async with document.turns:
            await self._permits.acquire()
            lease = Lease(self, document)
            try:
                yield lease
            finally:
                if lease.left:
                    lease.left.add_done_callback(lambda _: lease.end())
                else:
                    lease.end()

    def drop(self, document: Document) -> None:
        """Free the file of a document that was closed."""
        for process in self._idle:
            if process.document is document:
                process.drop()

    def close(self) -> None:
        """End all of them at once, and what they do."""
        self._is_closed = True
        for process in self._alive:
            process.kill(Reason.CLOSED)

    # What leases ask for.

    def idle(self, document: Document) -> PdfProcess | None:
        """One that has nothing to do: the one that has the file open, or else the one that was used last."""
        while self._idle:
            has_it = (index for index, process in enumerate(self._idle) if process.document is document)
            process = self._idle.pop(next(has_it, -1))
            if not process.has_ended:
                return process
            self.lost(process)
        return None

    async def started(self) -> PdfProcess:
        """A new one. Raises `Unavailable` where the system has no room for it, and there is none that could be waited for."""
        while not self._is_closed:
            try:
                process = await self.in_thread(lambda: PdfProcess(most_bytes=self.most_bytes))
            except OSError as error:
                if not self._alive:
                    _log.error("pdf_process_not_started", reason=error.strerror)
                    raise Unavailable(
                        f"the PDF is not read: no process can be started for it ({error.strerror}). Raise the machine's or the "
                        "container's limit of processes or memory, and try again."
                    ) from error
                await asyncio.sleep(_LOOK_SECONDS)
                if self._idle:
                    return self._idle.pop()
                continue
            self._alive.add(process)
            return process
        raise Unavailable("the server leaves.")

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what blocks. Raises `Unavailable` as `begin` does."""
        return await self.begin(work)

    def begin(self, work: Callable[[], T], *, may_wait: bool = False) -> asyncio.Future[T]:
        """The same, for who has to know what became of it. Raises `Unavailable` where the system has no room for a thread.

        `may_wait`: it is done when another thread has ended its work then.
        """
        future: Future[T] = Future()
        try:
            self._threads.submit(_do, future, work)
        except RuntimeError as error:
            # It waits among the works all the same, and whoever was told that it failed is not to be surprised by it.
            if not may_wait and future.cancel():
                raise Unavailable(
                    "the PDF is not read: no thread can be started for it. Raise the machine's or the container's limit of processes, and "
                    "try again."
                ) from error
        return asyncio.wrap_future(future)

    def set_aside(self, process: PdfProcess) -> bool:
        """Give the place of a process to others, if not too many are aside already; it must not come back."""
        if self._aside >= self._most:
            return False
        self._aside += 1
        process.yield_to_others()
        self._permits.release()
        _log.warning("pdf_set_aside", seconds=ASIDE_SECONDS, aside=self._aside)
        return True

    def give_back(self, process: PdfProcess | None, document: Document, *, was_aside: bool, was_left: bool) -> None:
        """A lease ended; `was_left`: nobody waited for its last work."""
        if was_aside:
            self._aside -= 1
        else:
            self._permits.release()
        if process is None:
            return
        if not process.has_ended and (reason := self._past_use(process, was_aside=was_aside, was_left=was_left)):
            process.kill(reason)
        if process.has_ended:
            self.lost(process)
            return
        if document.is_closed and process.document is document:
            process.drop()
        self._idle.append(process)

    def _past_use(self, process: PdfProcess, *, was_aside: bool, was_left: bool) -> Reason | None:
        """Why a process is not to be used again."""
        if self._is_closed:
            return Reason.CLOSED
        if was_aside:
            return Reason.SLOW
        if process.works >= _MOST_WORKS or process.resident > max(self.most_bytes // _WORN_SHARE, _USUAL_BYTES):
            return Reason.WORN
        if not process.is_settled:
            return Reason.GIVEN_UP if was_left else Reason.ASTRAY
        return None

    def lost(self, process: PdfProcess) -> None:
        """A process that has ended, or was killed."""
        self._alive.discard(process)
        # The kernel may take its time for what had much memory.
        self.begin(process.reaped, may_wait=True).add_done_callback(lambda reaped: self._tell_end(process, reaped.result()))

    def _tell_end(self, process: PdfProcess, reason: Reason) -> None:
        self._ended(reason)
        level = logging.INFO if reason in {Reason.WORN, Reason.SLOW, Reason.GIVEN_UP, Reason.CLOSED} else logging.WARNING
        _log.log(level, "pdf_process_ended", reason=reason, pid=process.pid)

    def leave(self, process: PdfProcess, future: asyncio.Future[T]) -> asyncio.Task[None]:
        """What nobody waits for any longer is ended if it does not end by itself."""
        task = asyncio.create_task(_outlived(process, future))
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return task


class Lease:
    """A place among the processes, and the process that has it."""

    def __init__(self, processes: PdfProcesses, document: Document) -> None:
        self._processes = processes
        self._document = document
        self._process: PdfProcess | None = None
        self._is_aside = False
        self._look: asyncio.TimerHandle | None = None
        # What ends a work that nobody waits for; the lease is at its end when that is.
        self.left: asyncio.Task[None] | None = None

    async def do(self, work: Callable[[PdfProcess], T]) -> T:
        """Do a work in a process; where that ends, and may have by what it did before, once more in a new one.

        A task that is cancelled leaves at once, and the process ends soon. Raises `Ended`, `Unavailable` and what `work` raises.
        """
        self._process = self._processes.idle(self._document)
        for is_last in (False, True):
            if self._process is None:
                self._process = await self._processes.started()
            try:
                return await self._done(self._process, work)
            except Ended as ended:
                self._processes.lost(self._process)
                self._process = None
                if is_last or not _may_be_anothers(ended):
                    raise
        raise AssertionError

    def end(self) -> None:
        """Give the place back."""
        self._processes.give_back(self._process, self._document, was_aside=self._is_aside, was_left=self.left is not None)

    async def _done(self, process: PdfProcess, work: Callable[[PdfProcess], T]) -> T:
        future = self._processes.begin(lambda: work(process))
        self._look_at_later(process, ASIDE_SECONDS)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            self.left = self._processes.leave(process, future)
            raise
        finally:
            if self._look:
                self._look.cancel()
        return future.result()

    def _look_at_later(self, process: PdfProcess, seconds: float) -> None:
        self._look = asyncio.get_running_loop().call_later(seconds, self._set_aside, process)

    def _set_aside(self, process: PdfProcess) -> None:
        self._is_aside = self._is_aside or self._processes.set_aside(process)
        if not self._is_aside:
            # One of those that are may end before this one does.
            self._look_at_later(process, _LOOK_SECONDS)


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # whatever it is, it is told where it is waited for
        future.set_exception(error)
        # The error's frames know it, and would keep what they hold.
        del future


def _may_be_anothers(ended: Ended) -> bool:
    """Whether a process may have ended by something else than what it did last."""
    if ended.reason in {Reason.MEMORY, Reason.CRASHED}:
        return not ended.is_fresh
    return ended.reason in {Reason.KILLED, Reason.NOT_STARTED}


async def _outlived(process: PdfProcess, future: asyncio.Future[T]) -> None:
    try:
        await asyncio.wait((future,), timeout=_LEFT_SECONDS)
    finally:
        if not future.done():
            process.kill(Reason.GIVEN_UP)
    await asyncio.wait((future,))
    # Looked at, so that it is not told as lost.
    if not future.cancelled():
        future.exception()
