"""Files in pieces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from inference_server.tasks.documents.outputs.files import OutputFiles
from inference_server.tasks.documents.outputs.port import FileChunk, Original, OutputFormat
from inference_server.tasks.documents.pdf.library import PDFIUM
from tests.support.pdf import pdf
from tests.support.read_pages import SUMMARY, line, page

ORIGINAL = Original(content=pdf([[]]), media_type="application/pdf")


async def all_of(chunks: AsyncIterator[FileChunk]) -> list[FileChunk]:
    return [chunk async for chunk in chunks]


async def test_no_piece_is_too_long_for_a_message_and_all_of_them_are_the_file() -> None:
    files = OutputFiles([OutputFormat.TEXT], ORIGINAL)
    text = "word " * 600_000
    pieces = [*await all_of(files.page(page(line([text])))), *await all_of(files.end(SUMMARY))]
    files.close()
    assert text == b"".join(piece.data for piece in pieces).decode()
    assert max(len(piece.data) for piece in pieces) <= 2**21
    assert [False] * (len(pieces) - 1) + [True] == [piece.last for piece in pieces]
    assert {("document.txt", "text/plain; charset=utf-8")} == {(piece.name, piece.media_type) for piece in pieces}


async def test_a_format_that_is_named_twice_is_one_file() -> None:
    files = OutputFiles([OutputFormat.TSV, OutputFormat.TSV], ORIGINAL)
    assert 1 == len(await all_of(files.page(page(line(["a"])))))


async def test_a_file_that_cannot_be_written_says_so_and_leaves_the_others() -> None:
    broken = Original(content=b"%PDF-1.7 cut off", media_type="application/pdf")
    files = OutputFiles([OutputFormat.SEARCHABLE_PDF, OutputFormat.TEXT], broken)
    failed, text = await all_of(files.page(page(line(["a"]))))
    ends = await all_of(files.end(SUMMARY))
    files.close()
    assert ("document.pdf", True, b"") == (failed.name, failed.last, failed.data)
    assert "the PDF is broken" in failed.error
    assert ("document.txt", b"a", "") == (text.name, text.data, text.error)
    assert ["document.txt"] == [end.name for end in ends], "nothing more of the one that failed"


async def test_the_event_loop_never_waits_for_pdfium() -> None:
    """Another thread draws a page meanwhile; the loop goes on, and what waits is the thread."""
    files = OutputFiles([OutputFormat.SEARCHABLE_PDF], ORIGINAL)
    held, release = threading.Event(), threading.Event()

    def draw() -> None:
        with PDFIUM:
            held.set()
            release.wait(60)

    other = threading.Thread(target=draw)
    other.start()
    held.wait(60)
    writing = asyncio.create_task(all_of(files.page(page(line(["a"]), size=(595, 842)))))
    await asyncio.sleep(0.1)
    assert other.is_alive(), "the loop went on before the lock was given up"
    assert not writing.done()
    release.set()
    assert [] == await writing
    other.join()
    files.close()
