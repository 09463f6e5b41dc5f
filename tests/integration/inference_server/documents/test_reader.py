"""Documents are read end to end with the built-in models."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from rapidfuzz import fuzz

from inference_server.errors import AccessDenied, ConfigurationError, DeadlineExceeded, InvalidDocument, InvalidInput, NotFound, Unavailable
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.detection.detector import DetectionSettings
from inference_server.tasks.documents.detection.orientation import Turn
from inference_server.tasks.documents.evaluation import bag_f1
from inference_server.tasks.documents.outputs.port import FileChunk, OutputFormat
from inference_server.tasks.documents.pdf.pages import PdfPages
from inference_server.tasks.documents.pdf.processes import Lease, PdfProcesses
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.values import DocumentSummary, Limits, PageResult, TextMode
from tests.support.documents.composed_pages import ComposedPage, cells_form, columns, form
from tests.support.documents.endless_pdf import endless_pdf
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import LAB_REPORT_TEXT, SIZE, image_file, images_of, lab_report_pdf, tiff_file
from tests.support.documents.worn_pages import SHAPES, Wear, scanned
from tests.support.models.direct_inference import DirectInference, RecordedInference
from tests.support.moved_clock import moved_clock
from tests.support.patience import PATIENCE_SECONDS, until

NOWHERE = Storage(read_roots=(), write_roots=())
GOODS = ("Rent", "Travel", "Postage", "Freight", "Salaries", "Repairs", "Paper", "Printing")
# Takes small pages as they are, for tests in which nothing is to be read.
SMALL = DetectionSettings(least_short_side=32)


async def read(reader: DocumentReader, request: DocumentRequest) -> tuple[list[PageResult], DocumentSummary]:
    events = [event async for event in reader.read(request, Caller())]
    pages = [event for event in events if isinstance(event, PageResult)]
    assert isinstance(events[-1], DocumentSummary)
    assert len(events) == len(pages) + 1
    return pages, events[-1]


async def test_a_pdf_is_read_page_by_page_and_summed_up(reader: DocumentReader) -> None:
    pages, summary = await read(reader, DocumentRequest(content=lab_report_pdf()))
    assert [(1, 2, 834, 556, ""), (2, 2, 834, 556, "")] == [
        (page.page_number, page.page_count, page.width, page.height, page.error) for page in pages
    ]
    assert list(LAB_REPORT_TEXT) == [page.text for page in pages]
    assert (2, 0, "application/pdf") == (summary.page_count, summary.failed_pages, summary.media_type)
    assert ("ppocrv6_small_det:1@onnxruntime:float32", "ppocrv6_small_rec:1@onnxruntime:float32") == summary.models
    assert 0.9 < summary.mean_confidence <= 1
    assert summary.duration_seconds > 0


async def test_polygons_enclose_the_ink_of_their_words_and_nothing_else(reader: DocumentReader) -> None:
    content = pdf([[Text(text="Glukosa Puasa 92 mg/dL", x=40, y=100, size=16)]], size=SIZE)
    ((page,), _) = await read(reader, DocumentRequest(content=content))
    (line,) = page.lines
    ink = np.asarray(images_of(content)[0].convert("L")) < 128
    covered = np.zeros_like(ink)
    assert ["Glukosa", "Puasa", "92", "mg/dL"] == [word.text for word in line.words]
    for quad in [word.polygon for word in line.words]:
        (left, top), (right, bottom) = np.floor(quad.min(axis=0)).astype(int), np.ceil(quad.max(axis=0)).astype(int)
        assert ink[top : bottom + 1, left : right + 1].any()
        covered[top : bottom + 1, left - 1 : right + 2] = True
        assert (line.polygon.min(axis=0) - 1 <= quad.min(axis=0)).all()
        assert (quad.max(axis=0) <= line.polygon.max(axis=0) + 1).all()
    assert ink[covered].sum() == ink.sum()
    spaces = [line.words[index + 1].polygon[0][0] - line.words[index].polygon[1][0] for index in range(3)]
    assert min(spaces) > 3


async def test_text_in_the_middle_of_a_page_that_is_blank_else_is_read_where_it_stands(reader: DocumentReader) -> None:
    printed = images_of(pdf([[Text(text="Glukosa Puasa 92 mg/dL", x=40, y=100, size=16)]], size=SIZE))[0]
    page = Image.new("RGB", (printed.width, 40_000), "white")
    page.paste(printed, (0, 20_000))
    ((read_page,), _) = await read(reader, DocumentRequest(content=image_file(page, "PNG")))
    (line,) = read_page.lines
    assert "Glukosa Puasa 92 mg/dL" == line.text
    rows = np.flatnonzero((np.asarray(page.convert("L")) < 128).any(axis=1))
    assert (rows[0], rows[-1]) == pytest.approx((line.polygon[:, 1].min(), line.polygon[:, 1].max()), abs=8)


async def test_two_columns_are_read_one_after_the_other(reader: DocumentReader) -> None:
    columns = [
        ["The patient came with", "fever and a cough that", "had lasted three days", "before the admission."],
        ["Blood was taken in the", "morning and showed no", "sign of an infection in", "the first two samples."],
    ]
    texts = [
        Text(text=line, x=15 + 145 * place, y=50 + 22 * row) for place, column in enumerate(columns) for row, line in enumerate(column)
    ]
    ((page,), _) = await read(reader, DocumentRequest(content=pdf([texts], size=SIZE)))
    assert columns[0] + columns[1] == [line.text for line in page.lines]


@pytest.mark.parametrize("quarters", [0, 1])
async def test_pairs_in_two_columns_are_read_across(reader: DocumentReader, quarters: int) -> None:
    halves = [
        ["Nama: Siti Rahayu Lestari", "Umur: 45 tahun, 2 bulan", "Kota: Bandung, Jawa Barat"],
        ["No. Lab: 48213-A/2024", "Dokter: dr. Ratna Sari", "Ruang: Melati Lantai 3"],
    ]
    texts = [Text(text=pair, x=15 + 175 * place, y=50 + 22 * row) for place, half in enumerate(halves) for row, pair in enumerate(half)]
    image = images_of(pdf([texts], size=(340, 200)))[0].rotate(90 * quarters, expand=True)
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(image, "PNG")))
    assert [f"{left} {right}" for left, right in zip(*halves, strict=True)] == [line.text for line in page.lines]


async def test_every_frame_of_a_tiff_is_read(reader: DocumentReader) -> None:
    pages, summary = await read(reader, DocumentRequest(content=tiff_file(images_of(lab_report_pdf()))))
    assert (list(LAB_REPORT_TEXT), "image/tiff") == ([page.text for page in pages], summary.media_type)


async def test_a_photograph_that_lies_on_its_side_is_read_upright(reader: DocumentReader) -> None:
    turned = images_of(lab_report_pdf())[1].transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    ((page,), summary) = await read(reader, DocumentRequest(content=image_file(turned, "JPEG", exif=exif, quality=90)))
    assert (LAB_REPORT_TEXT[1], 834, 556) == (page.text, page.width, page.height)
    assert "image/jpeg" == summary.media_type


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
async def test_a_page_that_came_turned_is_read_upright_and_its_turn_told(reader: DocumentReader, quarters: int) -> None:
    upright = images_of(lab_report_pdf())[0]
    turned = upright.rotate(90 * quarters, expand=True)
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(turned, "PNG")))
    assert (LAB_REPORT_TEXT[0], 90 * quarters, turned.size) == (page.text, page.rotation_degrees, (page.width, page.height))
    # Words lie on the page as it came, and begin where their text begins.
    turn = Turn(quarters=quarters, height=turned.height, width=turned.width)
    ink = np.asarray(upright.convert("L")) < 128
    for word in (word for line in page.lines for word in line.words):
        there = turn.outline(word.polygon)
        (left, top), (right, bottom) = there.min(axis=0).astype(int), there.max(axis=0).astype(int)
        assert ink[top : bottom + 1, left : right + 1].any()
        assert 1.5 > np.abs(turn.back(there)[0] - word.polygon[0]).max()


async def test_a_page_with_a_few_lines_stays_as_it_came(reader: DocumentReader) -> None:
    image = images_of(pdf([[Text(text="OK 69", x=15, y=40, size=14)]], size=(150, 80)))[0]
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(image, "PNG")))
    assert (0, "OK 69") == (page.rotation_degrees, page.text)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
async def test_two_lines_alone_tell_which_way_up_their_page_is(reader: DocumentReader, quarters: int) -> None:
    lines = ["Storage temperature below 25 degrees", "Keep out of the reach of children"]
    upright = images_of(pdf([[Text(text=one, x=40, y=60 + 30 * row, size=14) for row, one in enumerate(lines)]], size=(400, 160)))[0]
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(upright.rotate(90 * quarters, expand=True), "PNG")))
    assert (lines, 90 * quarters) == ([line.text for line in page.lines], page.rotation_degrees)


async def test_a_page_of_short_words_and_tall_marks_is_read_as_it_lies(reader: DocumentReader) -> None:
    # More of its outlines are tall than level, so that it seems to lie on its side; looked at turned, marks were read as 11.
    rows = [["Jan 3", "Paper", "12.00"], *(['"', '"', amount] for amount in ("3.50", "4.00", "5.50")), ["Jan 9", "Ink", "2.20"]]
    texts = tuple(
        Text(text=cell, x=20 + 75 * column, y=30 + 20 * row, size=11, font="Times-Roman")
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells)
    )
    image = scanned(ComposedPage(texts=texts, truth="", size=(240, 150)), Wear(dpi=150))
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(image, "PNG")))
    assert ([" ".join(row) for row in rows], 0) == ([line.text for line in page.lines], page.rotation_degrees)


async def test_a_page_that_is_askew_is_read_in_order(reader: DocumentReader) -> None:
    askew = images_of(lab_report_pdf())[0].rotate(3, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(askew, "PNG")))
    assert LAB_REPORT_TEXT[0] == page.text


@pytest.mark.parametrize("degrees", [98, 262])
async def test_a_page_that_came_on_its_side_and_askew_is_read_upright(reader: DocumentReader, degrees: int) -> None:
    turned = images_of(lab_report_pdf())[0].rotate(degrees, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(turned, "PNG")))
    assert (LAB_REPORT_TEXT[0], 90 if degrees < 180 else 270) == (page.text, page.rotation_degrees)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("curve", [0.02, 0.04, 0.06])
async def test_columns_of_a_page_that_bends_are_read_in_order_and_words_lie_on_their_ink(
    reader: DocumentReader, shape: str, curve: float
) -> None:
    page = columns(3, rows=12)
    # A share of the width, which is 595 of 842 points.
    image = scanned(page, Wear(dpi=110, curve=curve * 595 / 842, shape=shape))
    ((result,), _) = await read(reader, DocumentRequest(content=image_file(image, "PNG")))
    assert 0.98 <= bag_f1(page.truth, result.text)
    assert 0.95 <= fuzz.ratio(page.truth, result.text) / 100
    ink = np.asarray(image.convert("L")) < 128
    covered = np.zeros(ink.shape, np.uint8)
    for word in (word for line in result.lines for word in line.words):
        cv2.fillPoly(covered, [word.polygon.round().astype(np.int32)], 1)
    assert 0.97 <= ink[covered == 1].sum() / ink.sum()
    # Lines stand close: where words did not follow their curve, they would cover the neighbours' ink too.
    areas = [cv2.contourArea(word.polygon) for line in result.lines for word in line.words]
    assert 1.25 >= sum(areas) / covered.sum()


async def test_misread_letters_of_a_worn_page_are_mended_by_the_words_beside_the_recogniser(
    reader: DocumentReader, inference: RecordedInference, text_models: Path, tmp_path: Path
) -> None:
    rows = ("Annual forecast of quantity", "Previous original purchase", "Telephone required response", "Employee received description") * 2
    texts = tuple(Text(text=row, x=15, y=30 + 20 * index, size=8, font="Courier") for index, row in enumerate(rows))
    page = ComposedPage(texts=texts, truth="\n".join(rows), size=SIZE)
    content = image_file(scanned(page, Wear(dpi=98, archive_dpi=200), 3), "PNG")
    without = tmp_path / "without"
    shutil.copytree(text_models, without, ignore=shutil.ignore_patterns("words.txt"))
    (mended,), _ = await read(reader, DocumentRequest(content=content))
    (as_read,), _ = await read(DocumentReader(inference, NOWHERE, without), DocumentRequest(content=content))
    assert bag_f1(page.truth, mended.text) > bag_f1(page.truth, as_read.text) + 0.05
    # What was read can still be told.
    told = " ".join(word.read_text or word.text for line in mended.lines for word in line.words)
    assert bag_f1(as_read.text, told) > bag_f1(as_read.text, mended.text)
    assert any(word.read_text for line in mended.lines for word in line.words)


async def test_a_page_full_of_specks_is_read(reader: DocumentReader) -> None:
    page = form(0)
    content = image_file(scanned(page, Wear(dpi=92, archive_dpi=200, specks=3600)), "PNG")
    ((result,), _) = await read(reader, DocumentRequest(content=content))
    assert 0.93 <= bag_f1(page.truth, result.text)


@pytest.mark.parametrize("quarters", [0, 2])
async def test_letters_in_cells_are_read_as_words_that_lie_on_them(reader: DocumentReader, quarters: int) -> None:
    page = cells_form(1, rows=5)
    image = scanned(page, Wear(dpi=120, quarter_turns=quarters))
    ((result,), _) = await read(reader, DocumentRequest(content=image_file(image, "PNG")))
    assert 0.98 <= bag_f1(page.truth, result.text)
    assert 0.98 <= fuzz.ratio(page.truth, result.text) / 100
    words = [word for line in result.lines for word in line.words]
    for letter in page.texts:
        if len(letter.text) == 1 and letter.text.isalnum():
            place = (letter.x + letter.size / 3) * 120 / 72, (letter.y - letter.size / 3) * 120 / 72
            x, y = (image.width - place[0], image.height - place[1]) if quarters else place
            under = [word for word in words if cv2.pointPolygonTest(word.polygon, (x, y), measureDist=False) >= 0]
            assert [True] == [letter.text in word.text for word in under]


async def test_text_that_runs_down_the_page_is_read(reader: DocumentReader) -> None:
    page_image = Image.new("RGB", (400, 600), "white")
    strip = images_of(pdf([[Text(text="CONFIDENTIAL", x=10, y=20, size=14)]], size=(150, 30)))[0]
    page_image.paste(strip.transpose(Image.Transpose.ROTATE_270), (150, 50))
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(page_image, "PNG")))
    assert "CONFIDENTIAL" == page.text


@pytest.mark.parametrize(("font", "quarters"), [("Courier", 0), ("Courier", 1), ("Times-Roman", 0)])
async def test_dashes_in_the_cells_of_a_table_are_no_digits(reader: DocumentReader, font: str, quarters: int) -> None:
    rows = [[name, *("-" if (row + column) % 2 else f"{row + 3},{column + 2}80" for column in range(4))] for row, name in enumerate(GOODS)]
    texts = [
        Text(text=cell, x=60 + 90 * column, y=60 + 22 * row, font=font)
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells)
    ]
    picture = scanned(ComposedPage(texts=tuple(texts), truth="", size=(480, 260)), Wear(dpi=110, noise=5, quarter_turns=quarters))
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(picture, "PNG")))
    found = page.text.split()
    assert [cell for row in rows for cell in row if cell != "-"] == [cell for cell in found if cell != "-"]
    assert found.count("-") > len(rows)


async def test_a_line_longer_than_the_recogniser_takes_is_read_whole(reader: DocumentReader) -> None:
    text = "Hemoglobin hematokrit leukosit trombosit eritrosit glukosa kolesterol trigliserida kreatinin natrium kalium klorida"
    ((page,), _) = await read(reader, DocumentRequest(content=pdf([[Text(text=text, x=15, y=40)]], size=(640, 80))))
    assert text == page.text


@pytest.mark.parametrize("quarters", [0, 1])
async def test_a_long_receipt_is_read_whole_and_each_of_its_lines_once(reader: DocumentReader, quarters: int) -> None:
    """400 × 9,000 pixels: seen at once, its letters were 3 pixels high."""
    lines = [f"{row:03d} Kopi susu Rp 12.{row:03d}" for row in range(1, 181)]
    texts = [Text(text=line, x=12, y=24 * row, size=5) for row, line in enumerate(lines, 1)]
    page = ComposedPage(texts=tuple(texts), truth="\n".join(lines), size=(192, 4400))
    picture = scanned(page, Wear(dpi=150, quarter_turns=quarters))
    ((read_page,), _) = await read(reader, DocumentRequest(content=image_file(picture, "PNG")))
    found = [line.text for line in read_page.lines]
    assert (180, 180) == (len(found), len({line[:3] for line in found}))
    assert 0.99 < bag_f1(page.truth, read_page.text)


async def test_a_blank_page_is_empty_and_no_error(reader: DocumentReader) -> None:
    ((page,), summary) = await read(reader, DocumentRequest(content=pdf([[]], size=SIZE)))
    assert ("", (), "", 834) == (page.text, page.lines, page.error, page.width)
    assert (0, 0.0) == (summary.failed_pages, summary.mean_confidence)


async def test_only_the_pages_asked_for_are_read(reader: DocumentReader) -> None:
    pages, summary = await read(reader, DocumentRequest(content=lab_report_pdf(), pages=(2,)))
    assert [(2, 2)] == [(page.page_number, page.page_count) for page in pages]
    assert 2 == summary.page_count


async def test_a_page_that_cannot_be_read_leaves_the_others_unharmed(inference: DirectInference, text_models: Path) -> None:
    good = Image.new("RGB", (300, 100), "white")
    limited = DocumentReader(inference, NOWHERE, text_models, limits=Limits(most_page_pixels=40_000), detection=SMALL)
    content = tiff_file([good, Image.new("RGB", (300, 200)), good])
    pages, summary = await read(limited, DocumentRequest(content=content))
    assert [False, True, False] == [bool(page.error) for page in pages]
    assert "page 2 has 300 × 200 pixels; at most 40000 pixels are accepted" in pages[1].error
    assert (3, 1) == (summary.page_count, summary.failed_pages)
    ((page,), summary) = await read(limited, DocumentRequest(content=content, pages=(2,)))
    assert (True, 1) == (bool(page.error), summary.failed_pages)


async def test_a_page_that_takes_too_long_is_told_and_leaves_the_others(
    inference: DirectInference, text_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page waits for a model for longer than a page may take."""
    clock, slow = moved_clock(monkeypatch), _SlowFirst(inference)
    # One page at a time, so that the first is the first to ask for a model.
    limits = Limits(most_page_seconds=300.0)
    reader = DocumentReader(slow, NOWHERE, text_models, limits=limits, detection=SMALL, pages_ahead=1)
    blank = Image.new("RGB", (300, 100), "white")
    reading = asyncio.create_task(read(reader, DocumentRequest(content=tiff_file([blank, blank]))))
    await until(lambda: slow.calls)
    clock.sleep(300)
    pages, summary = await reading
    assert ["page 1 was not read within 300 s. Try it alone, or raise INFERENCE_MAX_PAGE_SECONDS.", ""] == [page.error for page in pages]
    assert 1 == summary.failed_pages


async def test_pages_left_when_a_documents_time_is_up_are_told(
    inference: DirectInference, text_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    clock, slow = moved_clock(monkeypatch), _SlowFirst(inference)
    reader = DocumentReader(
        slow,
        NOWHERE,
        text_models,
        limits=Limits(most_document_seconds=300.0),
        detection=SMALL,
        pages_ahead=1,
        refused=refused.append,
    )
    blank = Image.new("RGB", (300, 100), "white")
    reading = asyncio.create_task(read(reader, DocumentRequest(content=tiff_file([blank, blank]))))
    await until(lambda: slow.calls)
    clock.sleep(300)
    with pytest.raises(InvalidDocument, match="page 1 was not read: the 300 s of a document are used up"):
        await reading
    assert ["document_seconds"] * 2 == refused


class _SlowFirst:
    """The first call of a model never ends."""

    def __init__(self, inference: DirectInference) -> None:
        self._inference = inference
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inference, name)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.calls += 1
        if self.calls == 1:
            await asyncio.Event().wait()
        return await self._inference.infer(request)


async def test_a_document_none_of_whose_pages_can_be_read_fails(reader: DocumentReader) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    content = image_file(noise, "JPEG")
    with pytest.raises(InvalidDocument, match="cannot be decoded: the JPEG file is damaged or cut off"):
        await read(reader, DocumentRequest(content=content[: len(content) // 2]))


async def test_lines_of_one_width_share_a_call_within_the_models_batch(inference: RecordedInference, reader: DocumentReader) -> None:
    rows = [Text(text=f"Hemoglobin {13 + row}.5 g/dL", x=20, y=20 + 15 * row) for row in range(12)]
    await read(reader, DocumentRequest(content=pdf([rows], size=SIZE)))
    shapes = [request.inputs["x"].shape for request in inference.requests]
    detector, *lines = shapes
    assert [0, 0, 12] == [detector[2] % 32, detector[3] % 32, sum(shape[0] for shape in lines)]
    assert len(lines) < 6
    assert {(3, 48, 0)} == {(*shape[1:3], shape[3] % 32) for shape in lines}


async def test_a_document_is_read_from_an_allowed_root(reader: DocumentReader, documents: Path) -> None:
    path = documents / "report.bin"
    path.write_bytes(lab_report_pdf())
    pages, _ = await read(reader, DocumentRequest(uri=str(path), pages=(2,)))
    assert LAB_REPORT_TEXT[1] == pages[0].text


async def test_a_place_outside_the_allowed_roots_is_refused(reader: DocumentReader, documents: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.pdf").write_bytes(lab_report_pdf())
    (documents / "link.pdf").symlink_to(tmp_path / "secret.pdf")
    for uri in (str(tmp_path / "secret.pdf"), str(documents / ".." / "secret.pdf"), str(documents / "link.pdf")):
        with pytest.raises(AccessDenied, match="not under an allowed root"):
            await read(reader, DocumentRequest(uri=uri))


async def test_a_missing_file_is_told(reader: DocumentReader, documents: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        await read(reader, DocumentRequest(uri=str(documents / "none.pdf")))


@pytest.mark.parametrize("request_", [DocumentRequest(), DocumentRequest(content=b"x", uri="y")])
async def test_a_request_names_one_document(reader: DocumentReader, request_: DocumentRequest) -> None:
    with pytest.raises(InvalidInput, match="expected either its bytes"):
        await read(reader, request_)


async def test_a_page_out_of_range_is_refused_before_any_work(inference: RecordedInference, reader: DocumentReader) -> None:
    with pytest.raises(InvalidDocument, match="page 3 was asked for; the document has pages 1 to 2"):
        await read(reader, DocumentRequest(content=lab_report_pdf(), pages=(1, 3)))
    assert [] == inference.requests


async def test_a_reader_that_is_closed_stops_its_work(text_models: Path) -> None:
    class Held(DirectInference):
        started = 0
        ended = 0

        async def infer(self, request: InferenceRequest) -> InferenceResponse:
            self.started += 1
            try:
                # Every page but the first is taller.
                if request.inputs["x"].shape[2] > 64:
                    await asyncio.Event().wait()
                return await super().infer(request)
            finally:
                self.ended += 1

    inference = Held(text_models)
    reader = DocumentReader(inference, NOWHERE, text_models, detection=SMALL, pages_ahead=3)
    content = tiff_file([Image.new("RGB", (60, 60 if number == 0 else 120), "white") for number in range(6)])
    async with aclosing(reader.read(DocumentRequest(content=content), Caller())) as events:
        assert 1 == (await anext(events)).page_number
        while inference.started < 3:
            await asyncio.sleep(0.01)
    assert inference.started == inference.ended
    assert inference.started <= 4
    assert [asyncio.current_task()] == list(asyncio.all_tasks())


async def test_many_pages_of_many_documents_stay_within_the_bound(text_models: Path) -> None:
    class Counted(DirectInference):
        now = 0
        most = 0

        async def infer(self, request: InferenceRequest) -> InferenceResponse:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                # However long another page takes to come here.
                await until(lambda: self.most > 1)
                return await super().infer(request)
            finally:
                self.now -= 1

    inference = Counted(text_models)
    reader = DocumentReader(inference, NOWHERE, text_models, detection=SMALL, pages_ahead=3, most_pages_at_once=2)
    content = pdf([[]] * 4, size=(72, 72))
    results = await asyncio.gather(*(read(reader, DocumentRequest(content=content)) for _ in range(3)))
    assert [[1, 2, 3, 4]] * 3 == [[page.page_number for page in pages] for pages, _ in results]
    assert 2 == inference.most


async def test_a_repository_without_the_characters_says_how_to_mend_it(inference: DirectInference, tmp_path: Path) -> None:
    reader = DocumentReader(inference, NOWHERE, tmp_path)
    with pytest.raises(ConfigurationError, match=r"characters\.txt is missing.*inference-server models build"):
        await read(reader, DocumentRequest(content=lab_report_pdf(), pages=(2,)))


async def test_white_text_on_black_is_read(reader: DocumentReader) -> None:
    image = images_of(pdf([[Text(text="Kalium 4.1 mmol/L", x=15, y=30, size=14)]], size=(180, 50)))[0]
    inverted = Image.fromarray(255 - np.asarray(image))
    ((page,), _) = await read(reader, DocumentRequest(content=image_file(inverted, "PNG")))
    assert "Kalium 4.1 mmol/L" == page.text


async def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(DocumentRequest(content=b"", password="secret"))


@pytest.mark.parametrize("missing", ["ppocrv6_small_det", "ppocrv6_small_rec"])
async def test_a_server_without_a_built_in_model_is_unavailable_until_it_is_built(text_models: Path, tmp_path: Path, missing: str) -> None:
    for name in {"ppocrv6_small_det", "ppocrv6_small_rec"} - {missing}:
        (tmp_path / name).symlink_to(text_models / name)
    reader = DocumentReader(RecordedInference(tmp_path), Storage(read_roots=(), write_roots=()), tmp_path)
    with pytest.raises(Unavailable, match=rf"lacks its built-in model {missing}.*`inference-server models build`"):
        await read(reader, DocumentRequest(content=lab_report_pdf()))


async def test_small_blurred_print_is_cut_out_no_higher_than_it_stands(reader: DocumentReader) -> None:
    lines = (
        "Submitted by Ellen Monahan",
        "Circulation 1,450,000",
        "Method of Shipment Air Freight",
        "Department Quantity Nicotine",
        "Approved by L. Bennett Region",
        "Each office keeps a copy of the form for two years and returns the original",
        "Contact Vincent Losito Agency Leo Burnett",
        "Purchase Order Filter Acetate Zone",
    )
    texts = tuple(Text(text=line, x=20, y=30 + 16 * row, size=7, font="Times-Roman") for row, line in enumerate(lines))
    page = ComposedPage(texts=texts, truth="\n".join(lines), size=(595, 600))
    figures = []
    for blur in (0.7, 0.8):
        content = image_file(scanned(page, Wear(dpi=92, blur=blur, noise=8), seed=1), "PNG")
        ((read_page,), _) = await read(reader, DocumentRequest(content=content))
        figures.append(bag_f1(page.truth, read_page.text))
    assert np.mean(figures) > 0.8


async def test_a_pdf_that_holds_pdfium_for_ever_holds_up_no_other_document(inference: RecordedInference, text_models: Path) -> None:
    image = image_file(images_of(pdf([[Text(text="Glukosa Puasa", x=40, y=60, size=16)]], size=SIZE))[0], "PNG")
    # Fewer turns than pages that are drawn for ever.
    reader = DocumentReader(inference, NOWHERE, text_models, most_pages_at_once=1, processes=PdfProcesses(most=3))
    endless = [asyncio.create_task(read(reader, DocumentRequest(content=endless_pdf()))) for _ in range(2)]
    await until(lambda: reader.processes.count == 2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        (page,), _ = await read(reader, DocumentRequest(content=image))
        pages, _ = await read(reader, DocumentRequest(content=lab_report_pdf()))
    assert page.text == "Glukosa Puasa"
    assert list(LAB_REPORT_TEXT) == [page.text for page in pages]
    assert not any(task.done() for task in endless)
    await _ended(*endless)
    reader.processes.close()


async def _ended(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_page_that_pdfium_draws_for_ever_is_told_in_time_and_the_document_ends(
    inference: RecordedInference, text_models: Path
) -> None:
    refused: list[str] = []
    reader = DocumentReader(inference, NOWHERE, text_models, limits=Limits(most_page_seconds=1.5), refused=refused.append)
    # Its process is there.
    with suppress(InvalidDocument):
        await read(reader, DocumentRequest(content=lab_report_pdf()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(InvalidDocument, match=r"not (read|opened) within 1\.5 s"):
            await read(reader, DocumentRequest(content=endless_pdf()))
    # Ended with the page.
    await until(lambda: reader.processes.count == 0)


@asynccontextmanager
async def _held(processes: PdfProcesses) -> AsyncIterator[None]:
    """All its places."""
    holder = PdfPages(b"", dpi=72, password="", limits=Limits(), processes=processes)
    async with processes.lease(holder):
        yield


async def test_a_document_that_is_not_opened_in_time_is_told_to_have_waited(inference: RecordedInference, text_models: Path) -> None:
    processes = PdfProcesses(most=1)
    reader = DocumentReader(inference, NOWHERE, text_models, limits=Limits(most_document_seconds=0.3), processes=processes)
    async with _held(processes), asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(DeadlineExceeded, match=r"not opened within 0\.3 s; other PDFs may have kept it waiting"):
            await read(reader, DocumentRequest(content=lab_report_pdf()))


async def test_a_document_whose_pages_wait_in_vain_may_be_tried_again(inference: RecordedInference, text_models: Path) -> None:
    class Held(PdfProcesses):
        """Of which others have all as soon as a document is opened."""

        def __init__(self) -> None:
            super().__init__(most=1)
            self.leases = 0

        @asynccontextmanager
        async def lease(self, document: object) -> AsyncIterator[Lease]:
            self.leases += 1
            if self.leases > 1:
                await asyncio.Event().wait()
            async with super().lease(document) as lease:
                yield lease

    reader = DocumentReader(inference, NOWHERE, text_models, limits=Limits(most_document_seconds=5, most_page_seconds=1), processes=Held())
    with pytest.raises(DeadlineExceeded, match=r"the 5 s of a document are used up.*it may be read when less is to do") as late:
        await read(reader, DocumentRequest(content=lab_report_pdf()))
    assert late.value.limit == "document_seconds"


async def test_a_file_that_waits_for_pdfium_beyond_the_time_of_its_document_is_told_to_have_failed_and_leaves_the_others(
    inference: RecordedInference, text_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_server.tasks.documents.outputs.files._LEAST_SECONDS", 0.2, raising=False)
    processes = PdfProcesses(most=1)
    reader = DocumentReader(inference, NOWHERE, text_models, limits=Limits(most_document_seconds=5), processes=processes)
    formats = (OutputFormat.SEARCHABLE_PDF, OutputFormat.TEXT)
    request = DocumentRequest(content=lab_report_pdf(), pages=(1,), text_mode=TextMode.LAYER, formats=formats)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(reader.read(request, Caller())) as events:
        page = await anext(events)
        async with _held(processes):
            *texts, failed, last, summary = [event async for event in events]
    assert isinstance(page, PageResult)
    assert isinstance(summary, DocumentSummary)
    assert isinstance(failed, FileChunk)
    assert ("document.pdf", True) == (failed.name, failed.last)
    assert "not written in the time of its document" in failed.error
    assert page.text == b"".join(chunk.data for chunk in (*texts, last) if isinstance(chunk, FileChunk)).decode()


async def test_a_document_that_is_closed_is_kept_by_no_process(reader: DocumentReader) -> None:
    large = lab_report_pdf() + b"%" + bytes(60_000_000)
    await read(reader, DocumentRequest(content=large, pages=(1,)))

    def resident() -> int:
        (pid,) = reader.processes.pids
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    await until(lambda: resident() < 60_000_000)


async def test_images_need_no_process(reader: DocumentReader) -> None:
    image = image_file(images_of(pdf([[Text(text="Glukosa Puasa", x=40, y=60, size=16)]], size=SIZE))[0], "PNG")
    assert [event async for event in reader.read(DocumentRequest(content=image, formats=tuple(OutputFormat)), Caller())]
    assert 0 == reader.processes.count
