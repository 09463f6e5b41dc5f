"""Files of what was read, over real gRPC with the built-in models."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any
from xml.etree import ElementTree

import grpc
import grpc.aio
import pypdf
import pypdfium2
import pytest
from lamina.v1 import documents_pb2
from PIL import Image

from tests.support.documents.printed_pages import LAB_REPORT_TEXT, image_file, images_of, lab_report_pdf, tiff_file

ALL = [value for value in documents_pb2.OutputFormat.values() if value != documents_pb2.OUTPUT_FORMAT_UNSPECIFIED]
NAMES = {"document.json", "document.txt", "document.hocr", "document.alto.xml", "document.pdf", "document.tsv"}

# Its calls are awaited, of which the stub's own type knows nothing.
Stub = Any


async def asked(stub: Stub, **request: object) -> tuple[list[documents_pb2.RecognizeDocumentResponse], dict[str, bytes]]:
    """All events, and the files; each is whole and in order."""
    events = [event async for event in stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(**request))]
    files: dict[str, bytes] = defaultdict(bytes)
    ended = set()
    for chunk in (event.chunk for event in events if event.WhichOneof("event") == "chunk"):
        assert len(files[chunk.name]) == chunk.offset
        assert chunk.name not in ended
        assert "" == chunk.error
        files[chunk.name] += chunk.data
        if chunk.last:
            ended.add(chunk.name)
    assert ended == set(files)
    return events, files


async def test_every_file_tells_what_the_pages_tell(stub: Stub) -> None:
    events, files = await asked(stub, content=tiff_file(images_of(lab_report_pdf())), formats=ALL)
    assert NAMES == set(files)
    assert [("Nama", "Siti Rahayu")] == [(field.label, field.value) for field in events[0].page.fields]
    assert "Siti Rahayu" == json.loads(files["document.json"])["pages"][0]["fields"][0]["value"]
    pages = [event.page for event in events if event.WhichOneof("event") == "page"]
    words = [word.text for page in pages for line in page.lines for word in line.words]
    assert list(LAB_REPORT_TEXT) == files["document.txt"].decode().split("\f")
    assert list(LAB_REPORT_TEXT) == [page["text"] for page in json.loads(files["document.json"])["pages"]]
    assert words == [row.split("\t")[11] for row in files["document.tsv"].decode().splitlines() if row.startswith("5\t")]
    hocr, alto = (ElementTree.fromstring(files[name]) for name in ("document.hocr", "document.alto.xml"))
    assert words == [element.text for element in hocr.iter() if element.get("class") == "ocrx_word"]
    assert words == [content for element in alto.iter() if (content := element.get("CONTENT"))]
    found = pypdfium2.PdfDocument(files["document.pdf"])
    assert list(LAB_REPORT_TEXT) == [page.get_textpage().get_text_range().replace("\r\n", "\n") for page in found]
    assert words == [word for page in pypdf.PdfReader(io.BytesIO(files["document.pdf"])).pages for word in page.extract_text().split()]


async def test_what_a_page_adds_comes_before_the_next_page_and_the_summary_last(stub: Stub) -> None:
    events, _ = await asked(stub, content=lab_report_pdf(), formats=[documents_pb2.OUTPUT_FORMAT_HOCR])
    assert ["page", "chunk", "page", "chunk", "chunk", "chunk", "summary"] == [event.WhichOneof("event") for event in events]


async def test_a_page_that_cannot_be_read_harms_no_file(stub: Stub) -> None:
    good = images_of(lab_report_pdf())[1]
    content = bytearray(image_file(good, "TIFF", save_all=True, append_images=[good], compression="tiff_adobe_deflate"))
    damaged: Any = Image.open(io.BytesIO(content))
    damaged.seek(1)
    start = damaged.tag_v2[273][0]
    content[start : start + 100] = b"\xaa" * 100
    events, files = await asked(stub, content=bytes(content), formats=ALL)
    pages = [event.page for event in events if event.WhichOneof("event") == "page"]
    assert [False, True] == [bool(page.error) for page in pages]
    assert f"{LAB_REPORT_TEXT[1]}\f" == files["document.txt"].decode()
    readable, blank = pypdf.PdfReader(io.BytesIO(files["document.pdf"])).pages
    assert (LAB_REPORT_TEXT[1], "") == (readable.extract_text(), blank.extract_text())
    assert pages[1].error in files["document.hocr"].decode()


async def test_the_layer_of_a_pdf_is_told_and_needs_no_model(stub: Stub) -> None:
    events, _ = await asked(stub, content=lab_report_pdf(), text_mode=documents_pb2.TEXT_MODE_AUTO)
    *pages, summary = events
    assert list(LAB_REPORT_TEXT) == [event.page.text for event in pages]
    assert {documents_pb2.TEXT_SOURCE_LAYER} == {event.page.text_source for event in pages}
    assert (1.0, []) == (summary.summary.mean_confidence, list(summary.summary.models))
    assert not pages[0].page.HasField("quality")


async def test_auto_reads_the_picture_of_a_page_whose_layer_is_not_sound(stub: Stub) -> None:
    scan = image_file(images_of(lab_report_pdf())[0], "PDF", resolution=200)
    events, _ = await asked(stub, content=scan, text_mode=documents_pb2.TEXT_MODE_AUTO)
    page = events[0].page
    assert (LAB_REPORT_TEXT[0], documents_pb2.TEXT_SOURCE_OCR) == (page.text, page.text_source)
    assert page.quality.sharpness > 0.05
    assert (0, True) == (page.quality.glare, page.quality.contrast > 0.5)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (
            {"formats": [documents_pb2.OUTPUT_FORMAT_UNSPECIFIED]},
            "formats is 0; expected one of ALTO, HOCR, JSON, SEARCHABLE_PDF, TEXT, TSV",
        ),
        ({"text_mode": 99}, "text_mode is 99"),
    ],
)
async def test_what_is_no_format_or_mode_is_refused(stub: Stub, request_: dict[str, object], reason: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await asked(stub, content=lab_report_pdf(), **request_)
    assert grpc.StatusCode.INVALID_ARGUMENT == failed.value.code()
    assert reason in str(failed.value.details())


async def test_logs_carry_neither_what_was_read_nor_passwords(stub: Stub, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await asked(stub, content=lab_report_pdf()[:200], password="my-secret")
    await asked(stub, content=lab_report_pdf(), formats=ALL, password="my-secret", text_mode=documents_pb2.TEXT_MODE_AUTO)
    logged = "".join(capfd.readouterr())
    assert "document_read" in logged
    assert [] == [word for word in ("my-secret", "Siti", "Rahayu", "Hemoglobin") if word in logged]
