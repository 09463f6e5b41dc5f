"""PDFs become searchable and stay what they are."""

from __future__ import annotations

import io
from contextlib import closing

import numpy as np
import pypdf
import pypdfium2
import pytest
from PIL import Image
from pypdf.generic import FloatObject, NameObject, NumberObject, RectangleObject

from inference_server.tasks.documents.pdf.overlay import PdfOverlay
from tests.support.documents.opened_pages import overlaid
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import image_file, lab_report_pdf
from tests.support.documents.read_pages import line, page

DPI = 100


def scanned(pages: int = 1) -> bytes:
    """Pages that a picture covers, 400 × 300 pixels at 100 dpi."""
    noise = np.random.default_rng(3).integers(0, 255, (300, 400), dtype=np.uint8)
    images = [Image.fromarray(noise) for _ in range(pages)]
    return image_file(images[0], "PDF", save_all=True, append_images=images[1:], resolution=DPI)


def text_of(content: bytes, index: int = 0) -> str:
    return pypdfium2.PdfDocument(content)[index].get_textpage().get_text_range().replace("\r\n", "\n")


def streams_of(content: bytes) -> list[bytes]:
    sheet = pypdf.PdfReader(io.BytesIO(content)).pages[0]
    contents = sheet["/Contents"].get_object()
    parts = contents if isinstance(contents, list) else [contents]
    return [part.get_object().get_data() for part in parts]


def image_of(content: bytes) -> bytes:
    (image,) = pypdf.PdfReader(io.BytesIO(content)).pages[0]["/Resources"]["/XObject"].values()
    return bytes(image.get_object()._data)


def test_the_text_is_found_by_pdfium_and_pypdf_and_cannot_be_seen() -> None:
    original = scanned()
    found = overlaid(
        original, page(line(["Nama:", "Siti"]), line(["血圧", "Привет"], y=60), line(["up", "there"], x=200, y=280, degrees=270))
    )
    assert "Nama: Siti\n血圧 Привет\nup there" == text_of(found)
    for words in ("Nama: Siti", "血圧 Привет", "up there"):
        assert words in pypdf.PdfReader(io.BytesIO(found)).pages[0].extract_text()
    before, after = (np.asarray(pypdfium2.PdfDocument(content)[0].render(scale=2).to_pil()) for content in (original, found))
    assert (before == after).all()


def test_images_and_content_are_copied_bit_for_bit() -> None:
    original = scanned()
    found = overlaid(original, page(line(["Nama:"])))
    assert image_of(original) == image_of(found)
    assert streams_of(original) == streams_of(found)[:-1]
    assert b"3 Tr" in streams_of(found)[-1]


@pytest.mark.parametrize("unit", [1, 10])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_words_lie_where_they_are_seen_on_turned_and_cropped_pages_of_any_unit(turn: int, unit: int) -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(scanned()))
    sheet = writer.pages[0]
    sheet[NameObject("/Rotate")] = NumberObject(turn)
    sheet[NameObject("/UserUnit")] = NumberObject(unit)
    sheet[NameObject("/CropBox")] = RectangleObject([FloatObject(value) for value in (18, 9, 270, 198)])
    out = io.BytesIO()
    writer.write(out)
    size = (350, 263) if turn % 180 == 0 else (263, 350)
    shown = line(["Glukosa", "92"], x=30, y=40)
    found = pypdfium2.PdfDocument(overlaid(out.getvalue(), page(shown, size=size)))[0]
    textpage = found.get_textpage()
    start, count = textpage.search("Glukosa").get_next()
    boxes = np.array([textpage.get_charbox(start + number) for number in range(count)])
    corners = np.array([found_on(found, x, y) for x, y in (*boxes[:, [0, 1]], *boxes[:, [2, 3]])]) * DPI / 72
    assert shown.words[0].polygon.min(axis=0) == pytest.approx(corners.min(axis=0), abs=2)
    assert shown.words[0].polygon.max(axis=0) == pytest.approx(corners.max(axis=0), abs=2)


def found_on(sheet: pypdfium2.PdfPage, x: float, y: float) -> tuple[float, float]:
    """A place of a page as it is shown, in points from its top left."""
    left, bottom, right, top = sheet.get_cropbox()
    return {0: (x - left, top - y), 90: (y - bottom, x - left), 180: (right - x, y - bottom), 270: (top - y, right - x)}[
        sheet.get_rotation()
    ]


def test_text_of_its_own_is_not_doubled() -> None:
    found = overlaid(lab_report_pdf(), page(line(["LABORATORIUM"]), size=(834, 556), of=2))
    assert 1 == text_of(found).count("LABORATORIUM")


def test_what_a_scan_was_made_searchable_by_is_not_doubled() -> None:
    """Words that were misread before are found as they are seen, too. pdfium by itself tells what lies at one place once."""
    before = overlaid(scanned(), page(line(["Nama:", "S1ti"]), line(["up", "there"], x=200, y=280, degrees=270)))
    again = overlaid(before, page(line(["Nama:", "Siti"]), line(["up", "there"], x=200, y=280, degrees=270), line(["Baru"], y=60)))
    found = pypdf.PdfReader(io.BytesIO(again)).pages[0].extract_text()
    assert sorted(["Nama:", "S1ti", "Siti", "up", "there", "Baru"]) == sorted(found.split())


def test_the_same_word_elsewhere_is_added() -> None:
    before = overlaid(scanned(), page(line(["Nama:"])))
    assert 2 == text_of(overlaid(before, page(line(["Nama:"]), line(["Nama:"], y=100)))).count("Nama:")


def test_an_encrypted_file_is_opened_for_its_owner() -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(scanned()))
    writer.encrypt("secret", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    assert "Nama:" == text_of(overlaid(out.getvalue(), page(line(["Nama:"])), password="secret"))


def test_pages_that_were_not_read_stay_without_text() -> None:
    pages = [page(line(["one"]), of=3), page(number=2, of=3, error="page 2 is broken"), page(line(["three"]), number=3, of=3)]
    assert ["one", "", "three"] == [text_of(overlaid(scanned(3), *pages), index) for index in range(3)]


def test_what_the_page_leaves_behind_does_not_move_the_text() -> None:
    """Content that changes the coordinates and never restores them."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf([[Text(text="Page 1", x=10, y=20)]], size=(288, 216))))
    stream = writer.pages[0]["/Contents"].get_object()
    stream.set_data(b"0.5 0 0 -0.5 10 200 cm\n" + stream.get_data())
    out = io.BytesIO()
    writer.write(out)
    found = pypdfium2.PdfDocument(overlaid(out.getvalue(), page(line(["Glukosa"], x=100, y=100))))[0].get_textpage()
    start, _ = found.search("Glukosa").get_next()
    left, bottom, _, _ = found.get_charbox(start)
    assert (72, 216 - 120 * 0.72) == pytest.approx((left, bottom), abs=1)


def test_what_stops_the_writing_is_told_as_what_it_is() -> None:
    def full(piece: bytes) -> None:
        raise MemoryError

    with closing(PdfOverlay(scanned(), "")) as overlay, pytest.raises(MemoryError):
        overlay.save(full)


def test_the_font_that_is_added_reaches_as_far_down_as_its_characters() -> None:
    fonts = pypdf.PdfReader(io.BytesIO(overlaid(scanned(), page(line(["Nama:"]))))).pages[0]["/Resources"]["/Font"]
    (font,) = fonts.values()
    assert -10 < font["/DescendantFonts"][0]["/FontDescriptor"]["/Descent"] < 0
