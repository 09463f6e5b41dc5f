"""Forms of PDFs that draw each other so often that no page ever ends."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pages import open_pages
from inference_server.tasks.documents.values import Limits

LIMITS = Limits(most_pdf_stream_bytes=1_000_000)
_FORM = b"/Type /XObject /Subtype /Form /BBox [0 0 400 400]"


def stream(content: bytes, entries: bytes = b"", *, packed: bool = False) -> bytes:
    """A stream as an object has it."""
    data = zlib.compress(content) if packed else content
    told = entries + (b" /Filter /FlateDecode" if packed else b"")
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (told, len(data), data)


def document(content: bytes, *more: bytes, resources: bytes = b"/XObject << /F 5 0 R >>", packed: bool = False) -> bytes:
    """A page of a content; further objects begin with number 5."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 400] /Contents 4 0 R /Resources << %s >> >>" % resources,
        stream(content, packed=packed),
        *more,
    ]
    return (
        b"%PDF-1.7\n"
        + b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
        + b"trailer\n<< /Root 1 0 R >>\n"
    )


def chain(length: int, times: int) -> Sequence[bytes]:
    """Forms of which each draws the next so often; the last one draws a square."""
    inner = [stream(b"/F Do " * times, b"%s /Resources << /XObject << /F %d 0 R >> >>" % (_FORM, 6 + number)) for number in range(length)]
    return [*inner, stream(b"0 0 9 9 re f", _FORM)]


def draws_itself(*, packed: bool = False, resources: bytes = b"/Resources << /XObject << /F 5 0 R >> >>") -> bytes:
    """A form that draws itself twice."""
    return stream(b"/F Do /F Do", b"%s %s" % (_FORM, resources), packed=packed)


@pytest.mark.parametrize(
    "content",
    [
        document(b"/F Do", draws_itself()),
        document(b"/F Do", draws_itself(packed=True), packed=True),
        document(b"/F Do", draws_itself(resources=b"")),
        document(b"/F Do", draws_itself(resources=b"/Resources 6 0 R"), b"<< /XObject 7 0 R >>", b"<< /F 5 0 R >>"),
        document(b"/#46 Do", draws_itself().replace(b"/F Do", b"/#46 Do").replace(b"/Form", b"/F#6Frm")),
        document(b"/F Do", *chain(12, 10)),
        document(b"/F Do " * 20_000, *chain(0, 0)),
    ],
    ids=["itself", "packed", "the page's resources", "resources apart", "escaped names", "chain", "flat"],
)
def test_forms_that_draw_each_other_without_end_are_refused_before_a_page_is_read(content: bytes) -> None:
    with pytest.raises(InvalidDocument, match="draws its parts so often that they come to more than 1000000 bytes") as refused:
        open_pages(content, limits=LIMITS)
    assert refused.value.limit == "pdf_stream_bytes"


def test_forms_whose_resources_are_packed_are_followed() -> None:
    packed = stream(b"6 0 << /XObject << /F 5 0 R >> >>", b"/Type /ObjStm /N 1 /First 4", packed=True)
    content = document(b"/F Do", draws_itself(resources=b"/Resources 6 0 R"), packed).replace(b"6 0 obj", b"8 0 obj")
    with pytest.raises(InvalidDocument, match="draws its parts so often"):
        open_pages(content, limits=LIMITS)


@pytest.mark.parametrize(
    "content",
    [
        document(b"/F Do " * 1_000, *chain(0, 0)),
        document(b"/F Do", *chain(30, 1)),
        document(b"/F Do", *chain(5, 3)),
        # Names are each form's own: the inner ones have the name of the outer one.
        document(
            b"/F Do",
            stream(b"/F Do /F Do /G Do", b"%s /Resources << /XObject << /F 6 0 R /G 7 0 R >> >>" % _FORM),
            stream(b"/F Do /F Do /G Do", b"%s /Resources << /XObject << /F 7 0 R /G 7 0 R >> >>" % _FORM),
            stream(b"0 0 9 9 re f", _FORM),
        ),
    ],
    ids=["symbols", "deep", "wide", "same names"],
)
def test_forms_that_are_drawn_as_often_as_documents_draw_them_are_read(content: bytes) -> None:
    assert open_pages(content, limits=LIMITS).page(0).shape[2] == 3
