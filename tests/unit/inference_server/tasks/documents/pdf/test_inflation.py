"""Streams of PDFs that unpack to more memory than any page needs."""

from __future__ import annotations

import io
import resource
import zlib

import pytest
from pypdf import PdfWriter
from pypdf.generic import NameObject, StreamObject

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pages import open_pages
from inference_server.tasks.documents.values import Limits
from tests.support.pdf import Text, pdf

LIMITS = Limits(most_stream_bytes=1_000_000, most_page_pixels=1_000_000)


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


def test_a_stream_that_unpacks_to_more_than_the_limit_is_refused_without_the_memory_that_it_asks_for() -> None:
    """A file of 0.4 MB; pdfium takes 0.6 GB for it."""
    content = page_of(zlib.compress(b" " * (400 * 1024 * 1024), 9))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidDocument, match="a stream of the PDF unpacks to more than 134217728 bytes") as refused:
        open_pages(content, limits=Limits()).page(0)
    assert "stream_bytes" == refused.value.limit
    assert 100_000 > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "KB"


@pytest.mark.parametrize(
    "content",
    [
        page_of(zlib.compress(b" " * 1_000_001, 9)),
        page_of(zlib.compress(zlib.compress(b" " * 1_000_001, 9), 9)),
        page_of(zlib.compress(b" " * 1_000_001, 9), named="/Fl#61teDecode"),
        page_of(zlib.compress(b" " * 3_000_001, 9), image=True),
    ],
    ids=["once", "twice", "by another spelling", "as an image"],
)
def test_streams_are_told_however_they_are_packed(content: bytes) -> None:
    with pytest.raises(InvalidDocument, match="unpacks to more than"):
        open_pages(content, limits=LIMITS)


@pytest.mark.parametrize(("data", "image"), [(b"q " * 499_999 + b"Q", False), (b" " * 2_999_999, True)])
def test_streams_within_the_limit_are_read(data: bytes, image: bool) -> None:
    assert 1 == open_pages(page_of(zlib.compress(data, 9), image=image), limits=LIMITS).page_count
