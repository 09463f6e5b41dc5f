"""The text that a PDF holds: where it is, in which order, and when it is trusted."""

from __future__ import annotations

import io

import numpy as np
import pypdf
import pypdfium2
import pytest
from PIL import Image
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NumberObject, RectangleObject, TextStringObject

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.outputs.image_pdf import ImagePdfWriter
from inference_server.tasks.documents.outputs.port import Original
from inference_server.tasks.documents.pdf.layer import read_layer
from inference_server.tasks.documents.values import Limits, TextLayer, TextMode
from tests.support.documents.opened_pages import opened
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import LAB_REPORT_TEXT, SIZE, image_file, images_of, lab_report_pdf
from tests.support.documents.read_pages import line, page, written

LIMITS = Limits()


def layer_of(content: bytes, index: int = 0, dpi: int = 200) -> TextLayer:
    document = opened(content, limits=LIMITS, dpi=dpi)
    layer = document.text_layer(index)
    document.close()
    return layer


def text_of(layer: TextLayer) -> str:
    return "\n".join(line.text for line in layer.lines)


def changed(content: bytes, **entries: object) -> bytes:
    """The first page with other entries."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(content))
    for name, value in entries.items():
        writer.pages[0][NameObject(f"/{name}")] = value
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def assert_words_cover_their_ink(content: bytes) -> None:
    layer = layer_of(content)
    (image,) = images_of(content)
    ink = np.asarray(image.convert("L")) < 128
    assert (layer.width, layer.height) == image.size
    covered = np.zeros_like(ink)
    for word in (word for one in layer.lines for word in one.words):
        (left, top), (right, bottom) = np.floor(word.polygon.min(axis=0)).astype(int), np.ceil(word.polygon.max(axis=0)).astype(int)
        assert ink[top : bottom + 1, left : right + 1].any()
        covered[max(top - 1, 0) : bottom + 2, max(left - 1, 0) : right + 2] = True
    assert ink.sum() == ink[covered].sum()


def test_lines_and_words_are_in_order_with_confidence_1() -> None:
    layer = layer_of(lab_report_pdf())
    assert LAB_REPORT_TEXT[0] == text_of(layer)
    assert ["Hemoglobin", "13.5", "g/dL"] == [word.text for word in layer.lines[2].words]
    assert {1.0} == {word.confidence for one in layer.lines for word in one.words}
    assert layer.is_sound
    assert LAB_REPORT_TEXT[1] == text_of(layer_of(lab_report_pdf(), 1))


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_words_are_where_they_are_seen_on_turned_and_cropped_pages(turn: int) -> None:
    content = pdf([[Text(text="Glukosa Puasa", x=60, y=60), Text(text="92 mg/dL", x=180, y=120)]], size=SIZE)
    crop = RectangleObject([FloatObject(value) for value in (40, 20, 280, 190)])
    assert_words_cover_their_ink(changed(content, Rotate=NumberObject(turn), CropBox=crop))
    # Of a page that names a larger unit the picture is no larger, and the words are where that has them.
    assert_words_cover_their_ink(changed(content, Rotate=NumberObject(turn), CropBox=crop, UserUnit=NumberObject(10)))


def test_the_corners_of_turned_text_begin_at_its_own_top_left() -> None:
    content = changed(pdf([[Text(text="Glukosa", x=60, y=60)]], size=SIZE), Rotate=NumberObject(90))
    first, second, *_ = layer_of(content).lines[0].polygon
    assert second[1] > first[1] + 50
    assert abs(second[0] - first[0]) < 3


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_text_that_lies_on_its_side_or_head_is_in_the_order_of_the_upright_page(turn: int) -> None:
    """As a landscape table of a report stands on its portrait page."""
    layer = layer_of(changed(lab_report_pdf(), Rotate=NumberObject(turn)))
    assert (LAB_REPORT_TEXT[0], -turn % 360) == (text_of(layer), layer.rotation_degrees)
    assert_words_cover_their_ink(changed(pdf([[Text(text="Glukosa Puasa", x=60, y=60)]], size=SIZE), Rotate=NumberObject(turn)))


def test_a_note_at_the_margin_turns_no_page() -> None:
    lines = ["Hemoglobin 13.5 g/dL", "Leukosit 7.2 10^3/uL", "Natrium 140 mmol/L"]
    writer = pypdf.PdfWriter(
        clone_from=io.BytesIO(pdf([[Text(text=one, x=60, y=50 + 20 * row) for row, one in enumerate(lines)]], size=SIZE))
    )
    note = pypdf.PdfReader(io.BytesIO(pdf([[Text(text="Form 12-B, 2024", x=0, y=SIZE[1])]], size=SIZE))).pages[0]
    writer.pages[0].merge_transformed_page(note, pypdf.Transformation().rotate(90).translate(25, 60))
    out = io.BytesIO()
    writer.write(out)
    layer = layer_of(out.getvalue())
    assert 0 == layer.rotation_degrees
    assert lines == [line.text for line in layer.lines if line.text in lines]


def test_text_that_was_cut_off_the_page_is_not_told() -> None:
    content = pdf([[Text(text="Glukosa Puasa 92 mg/dL", x=60, y=60), Text(text="SECRET", x=60, y=170)]], size=SIZE)
    layer = layer_of(changed(content, CropBox=RectangleObject([FloatObject(value) for value in (0, 100, SIZE[0], SIZE[1])])))
    assert "Glukosa Puasa 92 mg/dL" == text_of(layer)
    hidden = layer_of(changed(content, CropBox=RectangleObject([FloatObject(value) for value in (0, 60, SIZE[0], 100)])))
    assert ("", False) == (text_of(hidden), hidden.is_sound)


def test_slanted_text_takes_no_more_place_than_it_needs() -> None:
    image = image_file(Image.new("RGB", (400, 300), "white"), "PNG", dpi=(72, 72))
    content = written(ImagePdfWriter(Original(content=image, media_type="image/png")), [page(line(["Glukosa"], x=150, y=100, degrees=30))])
    (found,) = layer_of(content, dpi=72).lines
    expected = line(["Glukosa"], x=150, y=100, degrees=30).polygon
    assert found.polygon[0] == pytest.approx(expected[0], abs=12)
    assert found.polygon[2] == pytest.approx(expected[2], abs=12)


def test_columns_are_read_one_after_the_other() -> None:
    columns = [
        ["The patient came with", "fever and a cough that", "had lasted three days"],
        ["Blood was taken in the", "morning and showed no", "sign of an infection"],
    ]
    texts = [Text(text=columns[place][row], x=15 + 145 * place, y=50 + 22 * row) for row in range(3) for place in range(2)]
    assert columns[0] + columns[1] == text_of(layer_of(pdf([texts], size=SIZE))).split("\n")


def scan(*, share: float, text: str) -> bytes:
    """A page that a picture covers in part, with text over it."""
    image = Image.new("L", (600, 400), "white")
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf([[Text(text=text, x=20, y=40)]], size=SIZE)))
    picture = io.BytesIO()
    image.save(picture, "PDF")
    stamp = pypdf.PdfReader(picture).pages[0]
    scale = share**0.5 * SIZE[0] / float(stamp.mediabox.width)
    writer.pages[0].merge_transformed_page(stamp, pypdf.Transformation().scale(scale))
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def form(value: str, **entries: object) -> bytes:
    """A lab report with a field over it."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(lab_report_pdf()))
    box = ArrayObject([FloatObject(place) for place in (150, 20, 280, 40)])
    told = {"Type": NameObject("/Annot"), "Subtype": NameObject("/Widget"), "FT": NameObject("/Tx"), "Rect": box, "F": NumberObject(4)}
    told |= {"T": TextStringObject("doctor"), "V": TextStringObject(value), "DA": TextStringObject("/Helv 12 Tf 0 g"), **entries}
    field = writer._add_object(DictionaryObject({NameObject(f"/{name}"): one for name, one in told.items()}))
    writer.pages[0][NameObject("/Annots")] = ArrayObject([field])
    writer.root_object[NameObject("/AcroForm")] = DictionaryObject({NameObject("/Fields"): ArrayObject([field])})
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        (form("dr. Ratna Sari"), False),
        (form(""), True),
        (form("dr. Ratna Sari", F=NumberObject(2)), True),
        (form("", FT=NameObject("/Btn"), V=NameObject("/Yes")), True),
        (form("", Subtype=NameObject("/FreeText"), Contents=TextStringObject("to be repeated")), False),
        (form("", Subtype=NameObject("/Link")), True),
    ],
    ids=["typed", "empty", "hidden", "tick", "note", "link"],
)
def test_text_over_which_something_is_written_is_not_all_of_the_page(content: bytes, sound: bool) -> None:
    assert sound is layer_of(content).is_sound
    # Opened without the form, as it is written again, it tells the same.
    document = pypdfium2.PdfDocument(content)
    assert sound is read_layer(document[0], 834, 556).is_sound


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        (lab_report_pdf(), True),
        (pdf([[Text(text="Page 1", x=20, y=40)]], size=SIZE), False),
        (pdf([[]], size=SIZE), False),
        (pdf([[Text(text="#$%&/() !?=* +~#' ;:_-", x=20, y=40)]], size=SIZE), False),
        (scan(share=0.2, text="Glukosa Puasa 92 mg/dL"), True),
        (scan(share=0.9, text="Glukosa Puasa 92 mg/dL"), False),
    ],
    ids=["a report", "a page number", "nothing", "only signs", "a small picture", "a scan with text over it"],
)
def test_text_is_trusted_where_it_is_enough_readable_and_not_over_a_scan(content: bytes, sound: bool) -> None:
    assert sound is layer_of(content).is_sound


def test_glyphs_that_mean_nothing_are_not_trusted() -> None:
    content = lab_report_pdf().replace(
        b"/Encoding /WinAnsiEncoding", b"/Encoding << /Differences [32 " + b" ".join(b"/g%d" % n for n in range(95)) + b"] >>"
    )
    assert not layer_of(pypdf_repaired(content)).is_sound


def test_a_few_lost_signs_are_told_as_lost_and_the_text_is_not_trusted() -> None:
    """What stands for a bound or a unit, and is no sign, would go unseen in a long text."""
    known = b"/Differences [1 /hyphen 3 /g1 /g2]"
    content = lab_report_pdf().replace(b"/Encoding /WinAnsiEncoding", b"/Encoding << /BaseEncoding /WinAnsiEncoding " + known + b" >>")
    lost = content.replace(b"(", b"(\\003\\004", 1)
    layer = layer_of(pypdf_repaired(lost))
    assert "\ufffd\ufffd" == text_of(layer)[:2]
    assert not layer.is_sound
    assert layer_of(pypdf_repaired(content)).is_sound


def test_lost_bullets_leave_a_list_trusted() -> None:
    """Fonts of bullets often do not say what they draw; what is told beside them is whole."""
    encoding = b"/Encoding << /BaseEncoding /WinAnsiEncoding /Differences [1 /g1] >>"
    content = pdf(
        [[Text(text=f"@ Glukosa puasa {row} mg/dL, di atas nilai rujukan rawat jalan", x=20, y=30 + 20 * row) for row in range(6)]],
        size=SIZE,
    )
    content = content.replace(b"/Encoding /WinAnsiEncoding", encoding)
    bullets = layer_of(pypdf_repaired(content.replace(b"(@", b"(\\001")))
    assert all(line.text.startswith("\ufffd Glukosa puasa ") for line in bullets.lines)
    assert bullets.is_sound
    assert not layer_of(pypdf_repaired(content.replace(b"(@ Glukosa", b"(Glukosa \\001"))).is_sound


def written_from_the_right(*lines: str) -> bytes:
    """Lines as such pages have them: from the left, what is read last first, and the letters of words too."""
    seen = [[word if word.isascii() else word[::-1] for word in reversed(one.split())] for one in lines]
    result = page(*(line(words, y=30 + 40 * index) for index, words in enumerate(seen)))
    return written(ImagePdfWriter(Original(content=image_file(Image.new("L", (400, 300), 255), "PNG"), media_type="image/png")), (result,))


def test_text_that_is_written_from_the_right_is_in_the_order_in_which_it_is_read() -> None:
    lines = ("בדיקת דם 12.5 תקינה", "המוגלובין g/dL 13.2 עד", "اسم المريض محمد")
    layer = layer_of(written_from_the_right(*lines), dpi=72)
    assert "\n".join(lines) == text_of(layer)
    for one in layer.lines:
        rights = [word.polygon[:, 0].max() for word in one.words]
        assert rights == sorted(rights, reverse=True)
        assert all(word.polygon[0, 0] < word.polygon[1, 0] for word in one.words)


def test_names_of_several_words_run_from_the_left_within_text_from_the_right() -> None:
    (found,) = layer_of(written_from_the_right("שם המטופל הרשום Cohen David בן 45"), dpi=72).lines
    assert "שם המטופל הרשום David Cohen בן 45" == found.text
    assert found.text.split() == [word.text for word in found.words]


def test_a_row_from_the_left_keeps_its_order_on_a_page_from_the_right() -> None:
    """As in reports whose text is Arabic and whose table is English."""
    columns = [line([word], x=x, y=120) for word, x in (("Glucose", 20), ("126", 160), ("mg/dL", 240), ("70-100", 330))]
    arabic = line([word[::-1] for word in reversed(["تقرير", "المختبر", "الطبي", "العام"])])
    content = written(
        ImagePdfWriter(Original(content=image_file(Image.new("L", (400, 300), 255), "PNG"), media_type="image/png")),
        (page(arabic, *columns),),
    )
    assert "تقرير المختبر الطبي العام\nGlucose 126 mg/dL 70-100" == text_of(layer_of(content, dpi=72))


def test_a_line_from_the_right_among_others_keeps_its_order() -> None:
    latin = "Laboratory report of the whole year"
    content = written(
        ImagePdfWriter(Original(content=image_file(Image.new("L", (400, 300), 255), "PNG"), media_type="image/png")),
        (page(line(latin.split()), line(["םד", "תקידב"], y=80)),),
    )
    assert f"{latin}\nבדיקת דם" == text_of(layer_of(content, dpi=72))


def test_words_of_fonts_that_are_not_there_have_bounds() -> None:
    """East Asian fonts are often left to the reader's machine."""
    content = pdf([[Text(text="Glukosa", x=20, y=40)]], size=SIZE).replace(
        b"/Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding",
        b"/Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H /DescendantFonts [<< /Type /Font /Subtype /CIDFontType0 "
        b"/BaseFont /STSong-Light /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 >> /DW 1000 >>]",
    )
    content = content.replace(b"(Glukosa)", b"<" + "血红蛋白".encode("utf-16-be").hex().encode() + b">")
    (found,) = layer_of(pypdf_repaired(content)).lines
    assert "血红蛋白" == found.text
    width, height = np.ptp(found.words[0].polygon, axis=0)
    assert 2 < width / height < 5


def pypdf_repaired(content: bytes) -> bytes:
    out = io.BytesIO()
    pypdf.PdfWriter(clone_from=io.BytesIO(content)).write(out)
    return out.getvalue()


def test_modes_take_the_layer_or_leave_it() -> None:
    report, scanned = (opened(content, limits=LIMITS) for content in (lab_report_pdf(), scan(share=0.9, text="Glukosa Puasa 92")))
    assert not isinstance(report.read(0, TextMode.OCR), TextLayer)
    assert isinstance(report.read(0, TextMode.AUTO), TextLayer)
    assert not isinstance(scanned.read(0, TextMode.AUTO), TextLayer)
    assert isinstance(scanned.read(0, TextMode.LAYER), TextLayer)
    image = opened(image_file(Image.new("L", (50, 50)), "PNG"), limits=LIMITS)
    assert not isinstance(image.read(0, TextMode.AUTO), TextLayer)
    with pytest.raises(InvalidDocument, match="a image/png file has no text of its own"):
        image.read(0, TextMode.LAYER)
