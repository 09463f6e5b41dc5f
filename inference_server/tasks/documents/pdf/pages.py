"""Pages of PDF files, as the server reads them: by processes that can be ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO, TypeVar

from inference_server.errors import InvalidDocument, Unavailable
from inference_server.tasks.documents.page_time import PageTime
from inference_server.tasks.documents.pdf.process import Ended, PdfProcess, Reason
from inference_server.tasks.documents.pdf.processes import Lease, PdfProcesses
from inference_server.tasks.documents.spooled import spooled_file
from inference_server.tasks.documents.values import Limits, Page, TextLayer, TextMode

T = TypeVar("T")

# A document that has cost so many processes is given up.
_MOST_LOST = 3
# What a file itself may have done, unlike whoever kills processes from outside.
_BY_THE_FILE = frozenset({Reason.MEMORY, Reason.CRASHED, Reason.ASTRAY})


class PdfPages:
    """A PDF whose pages are drawn one at a time, or a few where several processes are free."""

    media_type = "application/pdf"

    def __init__(self, content: bytes, *, dpi: int, password: str, limits: Limits, processes: PdfProcesses) -> None:
        """`dpi`: dots per inch."""
        self._content, self._password = content, password
        self._dpi = dpi
        self._limits = limits
        self._processes = processes
        self._lost = 0
        self.turns = asyncio.Semaphore(processes.most_of_one)
        self.is_closed = False
        self.page_count = 0

    async def open(self, time: PageTime) -> None:
        """Find the pages. Raises `InvalidDocument` when the file is broken or encrypted, `Unavailable` without a process."""
        async with self._lease() as lease:
            time.run()
            self.page_count = await self._done(lease, "the PDF", self._opened_in)

    async def read(self, index: int, mode: TextMode, time: PageTime) -> Page | TextLayer:
        """See `Pages`. Once it is drawn a page keeps its process until its turn comes, so that not all of a file's are drawn at once."""
        limits = self._limits

        def work(process: PdfProcess) -> Page | TextLayer:
            self._open_in(process)
            return process.page(index, mode=mode, dpi=self._dpi, lowest_dpi=limits.lowest_dpi, most_pixels=limits.most_page_pixels)

        async with self._lease() as lease:
            time.run()
            found = await self._done(lease, f"page {index + 1}", work)
            if not isinstance(found, TextLayer):
                await time.turn()
            return found

    async def laid_over(self, pages: BinaryIO, size: int) -> BinaryIO:
        """The file with text over its pages. `pages`: frames of them, so many bytes. Raises `InvalidDocument` and `Unavailable`."""
        file = spooled_file()

        def work(process: PdfProcess) -> None:
            self._open_in(process)
            pages.seek(0)
            file.seek(0)
            file.truncate()
            process.lay_over(pages, size, file.write)

        try:
            async with self._lease() as lease:
                await self._done(lease, "the searchable PDF", work)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    async def close(self) -> None:
        """Free the document."""
        self.is_closed = True
        self._processes.drop(self)

    def _opened_in(self, process: PdfProcess) -> int:
        return process.open(self, self._content, self._password)

    def _open_in(self, process: PdfProcess) -> None:
        if process.document is not self:
            self._opened_in(process)

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[Lease]:
        async with self._processes.lease(self) as lease:
            if self._lost >= _MOST_LOST:
                raise InvalidDocument(
                    f"not read: what was read of the document before ended pdfium {_MOST_LOST} times. Print it to a PDF anew, send its "
                    "pages as images, or name other pages in `pages`."
                )
            yield lease

    async def _done(self, lease: Lease, what: str, work: Callable[[PdfProcess], T]) -> T:
        try:
            return await lease.do(work)
        except Ended as ended:
            self._lost += ended.reason in _BY_THE_FILE
            raise self._error(what, ended.reason) from ended
        except asyncio.CancelledError:
            # It took its time, or its caller is gone.
            self._lost += 1
            raise

    def _error(self, what: str, reason: Reason) -> InvalidDocument | Unavailable:
        if reason is Reason.MEMORY:
            return InvalidDocument(
                f"{what} takes pdfium more than {self._processes.most_bytes} bytes of memory, or than the system gives it. Ask for a "
                "lower dpi, print the document to a PDF anew, send its pages as images, or raise INFERENCE_MAX_PDF_MEMORY_BYTES, or the "
                "system's own limit where that is lower.",
                limit="pdf_memory_bytes",
            )
        if reason in {Reason.CRASHED, Reason.ASTRAY}:
            return InvalidDocument(
                f"{what} makes pdfium fail: the file is damaged. Print the document to a PDF anew, or send its pages as images."
            )
        if reason is Reason.NOT_STARTED:
            return Unavailable(
                f"{what} is not read: processes for PDFs end as soon as they are started. The server's standard error tells why, unless "
                "memory has run out."
            )
        return Unavailable(f"{what} was not read: its process was killed, as is done where memory has run out. Try again.")
