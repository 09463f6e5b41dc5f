"""Forms of PDFs that draw each other so often that no page ever ends."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pages import open_pages
from inference_server.tasks.documents.pdf.expansion import check_expansion
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


def pages(*drawn: tuple[bytes, bytes], listed: bytes = b"%d 0 R") -> bytes:
    """A document of pages, each with a content and a form F of its own."""
    kids = b" ".join(b"%d 0 R" % (3 + 3 * index) for index in range(len(drawn)))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(drawn))]
    for index, (content, form) in enumerate(drawn):
        number = 4 + 3 * index
        resources = b"/Resources << /XObject << /F %d 0 R >> >>" % (number + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 400] /Contents %s %s >>" % (listed.replace(b"%d", b"%d" % number), resources)
        )
        objects += [stream(content), stream(form, _FORM)]
    return (
        b"%PDF-1.7\n"
        + b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
        + b"trailer\n<< /Root 1 0 R >>\n"
    )


MARKER, PICTURE = (b"/F Do " * 5_000, b"0 0 9 9 re f"), (b"/F Do", b"0 0 9 9 re f " * 20_000)


@pytest.mark.parametrize("listed", [b"%d 0 R", b"[%d 0 R]", b"[ %d 0 R ]"])
def test_a_large_form_of_one_page_and_a_small_one_of_another_may_have_one_name(listed: bytes) -> None:
    """As files have that were joined."""
    document = open_pages(pages(MARKER, PICTURE, listed=listed), limits=LIMITS)
    assert [document.page(index).shape[2] for index in range(2)] == [3, 3]


def test_a_page_that_draws_its_own_large_form_often_is_refused_beside_pages_with_others_of_its_name() -> None:
    with pytest.raises(InvalidDocument, match="draws its parts so often"):
        open_pages(pages(MARKER, PICTURE, (MARKER[0], PICTURE[1])), limits=LIMITS)


def test_a_content_that_another_page_draws_with_inherited_forms_is_told_by_those_too() -> None:
    """The first page is not drawn: it is no kid of the pages."""
    apart = b"<< /Type /Page /Contents 4 0 R /Resources << /XObject << /F 7 0 R >> >> >>"
    content = document(b"/F Do", draws_itself(resources=b""), apart, stream(b"0 0 9 9 re f", _FORM), resources=b"")
    content = content.replace(b"/Kids [3 0 R]", b"/Kids [3 0 R] /Resources << /XObject << /F 5 0 R >> >>").replace(
        b"/Resources <<  >>", b""
    )
    with pytest.raises(InvalidDocument, match="draws its parts so often"):
        open_pages(content, limits=LIMITS)


def test_forms_that_share_the_names_of_all_forms_are_told_at_once() -> None:
    count = 3_000
    forms = [stream(b"/F%d Do" % (number + 1) if number % 5 else b"", b"%s /Resources 5 0 R" % _FORM) for number in range(count)]
    names = b" ".join(b"/F%d %d 0 R" % (number, 6 + number) for number in range(count + 1))
    content = document(b"/F1 Do", b"<< /XObject << %s >> >>" % names, *forms, stream(b"", _FORM))
    started = time.thread_time()
    open_pages(content, limits=Limits())
    assert time.thread_time() - started < 5


@contextmanager
def most_memory(size: int) -> Iterator[None]:
    """Fails where more memory is taken meanwhile, in bytes."""
    tracemalloc.start()
    try:
        yield
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < size


def packed_objects(*pairs: tuple[int, int], text: bytes, count: int | None = None) -> bytes:
    """A stream of objects: the number and the place of each, then their text."""
    header = b" ".join(b"%d %d" % pair for pair in pairs) + b" "
    told = b"/Type /ObjStm /N %d /First %d" % (len(pairs) if count is None else count, len(header))
    return stream(header + text, told, packed=True)


def test_objects_whose_places_go_back_and_forth_keep_no_more_than_their_stream() -> None:
    objects = packed_objects(*[(1, 0), (1, 99_999_999)] * 400, text=b" " * 300_000)
    content = document(b"/F Do", stream(b"", _FORM), objects)
    with most_memory(10_000_000), pytest.raises(InvalidDocument, match="unpack to more than"):
        open_pages(content, limits=LIMITS)


def test_packed_objects_in_any_order_are_followed_up_to_their_number() -> None:
    objects = packed_objects((99, 40), (8, 0), text=b"<< /XObject << /F 5 0 R >> >>".ljust(40) + b"null")
    content = document(b"/F Do", draws_itself(resources=b"/Resources 8 0 R"), objects)
    with pytest.raises(InvalidDocument, match="draws its parts so often"):
        open_pages(content, limits=LIMITS)


def test_pairs_beyond_the_number_of_packed_objects_are_none() -> None:
    objects = packed_objects((99, 0), *[(99, 0)] * 100_000, text=b"null", count=1)
    assert 1 == open_pages(document(b"/F Do", stream(b"", _FORM), objects), limits=LIMITS).page_count


_SHARED = b"%s /Resources 5 0 R" % _FORM


@pytest.mark.parametrize(
    "more",
    [
        [stream(b"", _FORM), b"<< /XObject << %s >> %s >>" % (b"/A 1 0 R " * 50, b"/Contents[4 0 R]" * 20_000)],
        [b"<< %s >>" % (b"/XObject 6 0 R " * 50_000), b"<< /A 7 0 R >>", *[stream(b"/A Do", _SHARED)] * 5_000],
        [b"<< /XObject << %s >> >>" % b"".join(b"/A %d 0 R " % place for place in range(6, 200_000)), *[stream(b"/A Do", _SHARED)] * 5_000],
    ],
    ids=["contents", "tables", "objects"],
)
def test_what_many_streams_share_is_looked_at_once(more: Sequence[bytes]) -> None:
    content = document(b"", *more, resources=b"")
    started = time.thread_time()
    check_expansion(content, most_bytes=100_000_000)
    assert time.thread_time() - started < 2


def test_what_a_long_stream_draws_is_counted_without_a_list_of_all_of_it() -> None:
    content = document(b"/Stamp Do " * 500_000, stream(b"", _FORM), resources=b"/XObject << /Stamp 5 0 R >>", packed=True)
    with most_memory(20_000_000), pytest.raises(InvalidDocument, match="draws its parts so often"):
        check_expansion(content, most_bytes=30_000_000)


@pytest.mark.parametrize("between", [b" ", b" " * 70_000, b" 0 0 9 9 re f" * 1_000])
def test_nothing_that_a_stream_draws_is_lost_between_the_pieces_that_are_searched(between: bytes) -> None:
    """A hundred times a form of a thousand bytes: no other sum is as near to the limit."""
    drawing = b"%s/F%sDo%s" % (between, b" " * 40_000, between) * 100
    content = document(drawing, stream(b" " * 1_000, _FORM, packed=True), packed=True)
    come_to = len(drawing) + 64 + 100 * (1_000 + 64)
    check_expansion(content, most_bytes=come_to)
    with pytest.raises(InvalidDocument, match="draws its parts so often"):
        check_expansion(content, most_bytes=come_to - 1)


def test_a_stream_that_draws_too_many_different_parts_is_refused() -> None:
    names = [b"/F%d Do " % number for number in range(10_001)]
    check_expansion(document(b"".join(names[1:]), stream(b"", _FORM)), most_bytes=100_000_000)
    with pytest.raises(InvalidDocument, match="draws more than 10000 different parts") as refused:
        check_expansion(document(b"".join(names), stream(b"", _FORM)), most_bytes=100_000_000)
    assert refused.value.limit == "pdf_stream_bytes"


@pytest.mark.parametrize(
    "text", [b"<< /XObject << %s >> >>" % (b"/Stamp 10 0 R " * 500_000), b"<< /Contents [%s] >>" % (b"10 0 R " * 800_000)]
)
def test_what_a_dictionary_refers_to_over_and_over_is_kept_once(text: bytes) -> None:
    content = document(b"", stream(b"", _FORM), packed_objects((8, 0), text=text))
    with most_memory(30_000_000):
        check_expansion(content, most_bytes=100_000_000)
