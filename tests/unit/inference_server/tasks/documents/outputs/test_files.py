"""Files in pieces."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.outputs.files import OutputFiles
from inference_server.tasks.documents.outputs.port import FileChunk, Original, OutputFormat
from inference_server.tasks.documents.spooled import spooled_file
from tests.support.documents.pdf import pdf
from tests.support.documents.read_pages import SUMMARY, line, page

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


async def test_where_nothing_can_be_written_to_the_disk_the_file_says_so_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is longer than is held in memory goes to the folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "is not there"))

    async def lay_over(pages: BinaryIO, size: int) -> BinaryIO:
        file = spooled_file()
        file.write(bytes(17 * 2**20))
        return file

    files = OutputFiles([OutputFormat.SEARCHABLE_PDF, OutputFormat.TEXT], Original(content=b"", media_type="", lay_over=lay_over))
    await all_of(files.page(page(line(["a"]))))
    failed, end = await all_of(files.end(SUMMARY))
    files.close()
    assert ("document.pdf", True) == (failed.name, failed.last)
    assert "no room for it on its disk (No such file or directory)" in failed.error
    assert "TMPDIR" in failed.error
    assert ("document.txt", True, "") == (end.name, end.last, end.error)
