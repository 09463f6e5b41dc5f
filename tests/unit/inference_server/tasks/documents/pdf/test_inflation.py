"""Streams of PDFs that unpack to more memory than any page needs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import NameObject, StreamObject

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pages import open_pages
from inference_server.tasks.documents.pdf.inflation import check_inflation
from inference_server.tasks.documents.values import Limits
from tests.support.pdf import Text, pdf

LIMITS = Limits(most_pdf_stream_bytes=1_000_000, most_page_pixels=1_000_000)

BOMB = zlib.compress(b" " * 1_000_001, 9)
# A process of its own: its memory is told by the most that it ever had.
_PROGRAM = """
import json, resource, sys
from pathlib import Path
from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pages import open_pages
from inference_server.tasks.documents.values import Limits

content = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_pages(content, limits=Limits()).page(0)
except InvalidDocument as error:
    print(json.dumps([error.limit, str(error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def page_of(data: bytes, *, image: bool = False, named: str = "/FlateDecode") -> bytes:
    """A page whose content is a stream of these bytes."""
    writer = PdfWriter(clone_from=io.BytesIO(pdf([[Text(text="Hello", x=20, y=40)]])))
    stream = StreamObject()
    stream._data = data
    stream[NameObject("/Filter")] = NameObject(named)
    if image:
        stream[NameObject("/Subtype")] = NameObject("/Image")
    writer.pages[0][NameObject("/Contents")] = writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def with_stored(stored: bytes, data: bytes) -> bytes:
    """Deflate that begins with bytes as they are (RFC 1951, 3.2.4)."""
    rest = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = len(stored).to_bytes(2, "little")
    block = b"\x00" + size + bytes(byte ^ 0xFF for byte in size) + stored
    return b"\x78\x9c" + block + rest.compress(data) + rest.flush() + zlib.adler32(stored + data).to_bytes(4, "big")


def with_streams(streams: Sequence[bytes]) -> bytes:
    """A page, and streams that none names."""
    writer = PdfWriter(clone_from=io.BytesIO(pdf([[Text(text="Hello", x=20, y=40)]])))
    for data in streams:
        stream = StreamObject()
        stream._data = data
        stream[NameObject("/Filter")] = NameObject("/FlateDecode")
        writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_a_stream_that_unpacks_to_more_than_the_limit_is_refused_without_the_memory_that_it_asks_for(tmp_path: Path) -> None:
    """A file of 0.4 MB; pdfium takes 0.6 GB for it."""
    (tmp_path / "a.pdf").write_bytes(page_of(zlib.compress(b" " * (400 * 1024 * 1024), 9)))
    done = subprocess.run([sys.executable, "-c", _PROGRAM, tmp_path / "a.pdf"], capture_output=True, text=True, check=True, timeout=120)
    limit, message, taken = json.loads(done.stdout)
    assert "pdf_stream_bytes" == limit
    assert "a stream of the PDF unpacks to more than 134217728 bytes" in message
    assert 100_000 > taken, "KB"


@pytest.mark.parametrize(
    "content",
    [
        page_of(BOMB),
        page_of(zlib.compress(BOMB, 9)),
        page_of(BOMB, named="/Fl#61teDecode"),
        page_of(zlib.compress(b" " * 3_000_001, 9), image=True),
        page_of(BOMB).replace(b" 0 obj\n", b" 0 obj\n% stream\n"),
        page_of(BOMB).replace(b"\nstream\n", b"\nstream" + b" " * 20 + b"\n"),
        page_of(with_stored(b" endstream\nendobj\n", b" " * 1_000_001)),
        page_of(zlib.compress(b"\x78\x9c\xff\xff" + b" " * 3_000_001, 9), image=True),
        page_of(with_stored(b"1 0 obj\n<< >>\nstream\n" + BOMB, b"")),
    ],
    ids=[
        "once",
        "twice",
        "by another spelling",
        "as an image",
        "behind a comment",
        "behind blanks",
        "around the word that ends it",
        "as if packed twice",
        "within another",
    ],
)
def test_streams_are_told_however_they_are_packed(content: bytes) -> None:
    with pytest.raises(InvalidDocument, match="unpacks to more than"):
        open_pages(content, limits=LIMITS)


@pytest.mark.parametrize(("data", "image"), [(b"q " * 499_999 + b"Q", False), (b" " * 2_999_999, True)])
def test_streams_within_the_limit_are_read(data: bytes, image: bool) -> None:
    assert 1 == open_pages(page_of(zlib.compress(data, 9), image=image), limits=LIMITS).page_count


@pytest.mark.parametrize("length", [b"/Length 9", b"/Length 9 0 R", b"/L#65ngth 9", b"/Other (/Length 9) /Length 9"])
def test_streams_are_told_whatever_length_the_file_names(length: bytes) -> None:
    content = page_of(BOMB)
    assert content.count(b"/Length %d" % len(BOMB)) == 1
    with pytest.raises(InvalidDocument, match="unpacks to more than"):
        open_pages(content.replace(b"/Length %d" % len(BOMB), length), limits=LIMITS)


# What is no deflate, but makes the file large.
_PADDING = bytes(600_000)


@pytest.mark.parametrize(("beside", "within"), [([], 4), ([_PADDING], 64)], ids=["a small file", "a large one"])
def test_all_streams_together_may_unpack_to_a_multiple_of_what_one_may(beside: list[bytes], within: int) -> None:
    stream = zlib.compress(bytes(999_999), 9)
    assert 1 == open_pages(with_streams([*beside, *[stream] * within]), limits=LIMITS).page_count
    with pytest.raises(InvalidDocument, match=r"unpack to more than \d+ bytes together") as refused:
        open_pages(with_streams([*beside, *[stream] * (within + 2)]), limits=LIMITS)
    assert "pdf_stream_bytes" == refused.value.limit


def test_streams_that_all_run_through_each_other_are_refused() -> None:
    """Each stored block holds the head of the next stream: their lengths together grow with the square of the file's."""
    head = b"stream\n\x78\x9c"
    content = head + (b"\x00\x09\x00\xf6\xff" + head) * 100_000
    with pytest.raises(InvalidDocument, match="lie within each other") as refused:
        check_inflation(content, most_bytes=1_000_000, most_image_bytes=1_000_000)
    assert "pdf_stream_bytes" == refused.value.limit


@pytest.mark.parametrize("piece", [b"stream\n\x78\x9c", b"stream", b"\n<< /Length 9 >>\nstream\n\x78\x9c\xff\xff"])
def test_keywords_take_time_that_grows_with_their_number_and_not_with_its_square(piece: bytes) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        check_inflation(piece * count, most_bytes=128 * 1024 * 1024, most_image_bytes=1)
        return time.process_time() - began

    assert min(seconds(20_000) for _ in range(3)) < 40 * max(0.001, min(seconds(1_000) for _ in range(3)))
