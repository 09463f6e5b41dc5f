"""Files in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import BinaryIO

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.outputs.files import OutputFiles
from inference_server.tasks.documents.outputs.port import FileChunk, Original, OutputFormat
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
    async def lay_over(pages: BinaryIO, size: int) -> BinaryIO:
        raise InvalidDocument("the PDF takes no font")

    broken = Original(content=b"%PDF-1.7 cut off", media_type="application/pdf", lay_over=lay_over)
    files = OutputFiles([OutputFormat.SEARCHABLE_PDF, OutputFormat.TEXT], broken)
    (text,) = await all_of(files.page(page(line(["a"]))))
    failed, *ends = await all_of(files.end(SUMMARY))
    more = await all_of(files.end(SUMMARY))
    files.close()
    assert ("document.pdf", True, b"") == (failed.name, failed.last, failed.data)
    assert "the PDF takes no font" == failed.error
    assert ("document.txt", b"a", "") == (text.name, text.data, text.error)
    assert ["document.txt"] == [end.name for end in ends] == [end.name for end in more], "nothing more of the one that failed"
