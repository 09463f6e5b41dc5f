"""The document system's work against a real gRPC server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.v1 import documents_pb2
from structlog.testing import capture_logs

from bridge.errors import OverloadError, PermanentError, PoisonError
from bridge.inference.client import InferenceClient
from bridge.job import Delivery, Job
from bridge.results import ResultStore
from bridge.systems.documents.handler import DocumentHandler
from bridge.systems.documents.messages import request_message
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import ScriptedServer, answer, refuse


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    return ResultStore(str(tmp_path / "results"))


@pytest.fixture
def handler(client: InferenceClient, results: ResultStore, tmp_path: Path) -> DocumentHandler:
    return DocumentHandler(client=client, results=results, read_roots=[tmp_path / "inbox"], most_bytes=1000, checkpoint_seconds=0)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "inbox" / "report.pdf"
    path.parent.mkdir()
    path.write_bytes(b"%PDF-1.7 report")
    return path


def test_a_folder_to_read_from_that_is_not_there_is_warned_of_as_it_may_be_mounted_later(
    client: InferenceClient, results: ResultStore, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        DocumentHandler(client=client, results=results, read_roots=[tmp_path, tmp_path / "mnt"])
    (warning,) = logs
    assert (warning["log_level"], warning["root"]) == ("warning", str(tmp_path / "mnt"))
    assert warning["reason"].startswith("BRIDGE_READ_ROOTS names it")


def document_job(handler: DocumentHandler, uri: Path | str, **asked: Any) -> Job:
    body = request_message(key="job-1", document_uri=str(uri), **asked)
    return handler.parse(Delivery(source="local", queue="jobs", message_id="1", receipt="1", body=body))


def page(number: int, *, of: int = 3, error: str = "") -> documents_pb2.RecognizeDocumentResponse:
    points = [documents_pb2.Point(x=x, y=y) for x, y in ((1, 2), (30, 2), (30, 12), (1, 12))]
    words = [documents_pb2.Word(text=text, confidence=0.5 + number / 10, polygon=points) for text in ("page", str(number))]
    line = documents_pb2.TextLine(text=f"page {number}", confidence=0.5 + number / 10, polygon=points, words=words)
    read = documents_pb2.DocumentPage(page_number=number, page_count=of, width=100, height=200, error=error)
    if not error:
        read.lines.append(line)
        read.text = f"page {number}"
    return documents_pb2.RecognizeDocumentResponse(page=read)


def summary(pages: int = 3) -> documents_pb2.RecognizeDocumentResponse:
    told = documents_pb2.DocumentSummary(page_count=pages, media_type="application/pdf", models=["rec:1@onnxruntime:float32"])
    return documents_pb2.RecognizeDocumentResponse(summary=told)


async def test_a_document_becomes_json_and_text(
    server: ScriptedServer, handler: DocumentHandler, document: Path, results: ResultStore
) -> None:
    server.script = [answer(page(1), page(2), page(3), summary())]
    outcome = await handler.handle(document_job(handler, document), RecordedContext(fence=2))
    folder = Path(results.root) / "documents/job-1/2"
    assert server.requests[0].content == b"%PDF-1.7 report"
    assert (folder / "document.txt").read_text() == "page 1\fpage 2\fpage 3"
    kept = json.loads((folder / "document.json").read_text())
    assert [one["page_number"] for one in kept["pages"]] == [1, 2, 3]
    assert kept["pages"][0]["lines"][0]["words"][0] == {"text": "page", "confidence": 0.6, "polygon": [[1, 2], [30, 2], [30, 12], [1, 12]]}
    told = outcome.result
    assert (told["page_count"], told["word_count"], told["mean_confidence"], told["failed_pages"]) == (3, 6, 0.7, 0)
    assert told["first_lines"] == ["page 1", "page 2", "page 3"]
    assert [one["uri"] for one in told["artifacts"]] == [str(folder / "document.json"), str(folder / "document.txt")]
    assert json.loads(outcome.events[0].body)["result"]["location"] == str(folder)


async def test_a_document_behind_a_url_is_read_by_the_server(server: ScriptedServer, handler: DocumentHandler) -> None:
    server.script = [answer(page(1, of=1), summary(1))]
    await handler.handle(document_job(handler, "s3://bucket/a.pdf", dpi=300, pages=[1], password="secret"), RecordedContext())
    request = server.requests[0]
    assert (request.document_uri, request.dpi, list(request.pages), request.password) == ("s3://bucket/a.pdf", 300, [1], "secret")


async def test_a_second_try_reads_only_the_pages_that_are_missing(server: ScriptedServer, handler: DocumentHandler, document: Path) -> None:
    server.script = [
        refuse(grpc.StatusCode.UNAVAILABLE, "going down", after=(page(1), page(2))),
        answer(page(3), summary()),
    ]
    first = RecordedContext(fence=1)
    with pytest.raises(OverloadError):
        await handler.handle(document_job(handler, document), first)
    assert first.checkpoints[-1] == {"page_count": 3, "pages": {"1": 1, "2": 1}}
    second = RecordedContext(fence=2, checkpoint=first.checkpoints[-1])
    outcome = await handler.handle(document_job(handler, document), second)
    assert list(server.requests[1].pages) == [3]
    assert outcome.result["first_lines"] == ["page 1", "page 2", "page 3"]
    assert outcome.result["mean_confidence"] == 0.7
    assert second.checkpoints[-1] == {"page_count": 3, "pages": {"1": 1, "2": 1, "3": 2}}


async def test_a_try_with_all_pages_read_still_asks_for_the_facts(server: ScriptedServer, handler: DocumentHandler, document: Path) -> None:
    server.script = [
        refuse(grpc.StatusCode.UNAVAILABLE, after=(page(1), page(2), page(3))),
        answer(page(3), summary()),
    ]
    first = RecordedContext()
    with pytest.raises(OverloadError):
        await handler.handle(document_job(handler, document), first)
    outcome = await handler.handle(document_job(handler, document), RecordedContext(fence=2, checkpoint=first.checkpoints[-1]))
    assert list(server.requests[1].pages) == [3]
    assert (outcome.result["pages_read"], outcome.result["media_type"]) == (3, "application/pdf")


async def test_a_page_file_that_is_gone_is_read_anew(
    server: ScriptedServer, handler: DocumentHandler, document: Path, results: ResultStore
) -> None:
    server.script = [refuse(grpc.StatusCode.UNAVAILABLE, after=(page(1), page(2))), answer(page(2), page(3), summary())]
    first = RecordedContext()
    with pytest.raises(OverloadError):
        await handler.handle(document_job(handler, document), first)
    (Path(results.root) / "documents/job-1/1/pages/00002.json").unlink()
    await handler.handle(document_job(handler, document), RecordedContext(fence=2, checkpoint=first.checkpoints[-1]))
    assert list(server.requests[1].pages) == [2, 3]


async def test_a_page_that_cannot_be_read_leaves_the_others(server: ScriptedServer, handler: DocumentHandler, document: Path) -> None:
    server.script = [answer(page(1), page(2, error="the page is damaged"), page(3), summary())]
    outcome = await handler.handle(document_job(handler, document), RecordedContext())
    assert outcome.succeeded
    assert (outcome.result["pages_read"], outcome.result["failed_pages"]) == (3, 1)
    assert outcome.result["first_lines"] == ["page 1", "page 3"]


async def test_progress_is_reported_by_pages(server: ScriptedServer, handler: DocumentHandler, document: Path) -> None:
    server.script = [answer(page(1, of=2), page(2, of=2), summary(2))]
    context = RecordedContext()
    await handler.handle(document_job(handler, document), context)
    assert context.reports == [(0.475, "page 1/2"), (0.95, "page 2/2")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("inbox/empty.pdf", b"", r"is empty \(0 bytes\)"),
        ("inbox/large.pdf", b"x" * 1001, "has 1001 bytes; at most 1000 are accepted"),
        ("inbox/missing.pdf", None, "does not exist"),
        ("elsewhere/report.pdf", b"%PDF", "BRIDGE_READ_ROOTS"),
        ("inbox/../elsewhere/report.pdf", b"%PDF", "BRIDGE_READ_ROOTS"),
    ],
)
async def test_a_file_that_cannot_be_sent_is_permanent(
    handler: DocumentHandler, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "elsewhere").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PermanentError, match=reason):
        await handler.handle(document_job(handler, tmp_path / name), RecordedContext())


async def test_a_folder_is_no_document(handler: DocumentHandler, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    with pytest.raises(PermanentError, match="is a folder"):
        await handler.handle(document_job(handler, tmp_path / "inbox"), RecordedContext())


async def test_a_link_leads_out_of_no_folder(handler: DocumentHandler, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "secret.pdf").write_bytes(b"%PDF")
    (tmp_path / "inbox/link.pdf").symlink_to(tmp_path / "secret.pdf")
    with pytest.raises(PermanentError, match="BRIDGE_READ_ROOTS"):
        await handler.handle(document_job(handler, tmp_path / "inbox/link.pdf"), RecordedContext())


def chunk(name: str, data: bytes, offset: int = 0, *, last: bool = False, error: str = "") -> documents_pb2.RecognizeDocumentResponse:
    told = documents_pb2.DocumentChunk(name=name, media_type="application/pdf", offset=offset, data=data, last=last, error=error)
    return documents_pb2.RecognizeDocumentResponse(chunk=told)


async def test_files_that_are_asked_for_lie_beside_what_was_read(
    server: ScriptedServer, handler: DocumentHandler, document: Path, results: ResultStore
) -> None:
    server.script = [
        answer(
            page(1, of=1),
            chunk("document.pdf", b"%PDF"),
            chunk("document.hocr", b"<html>"),
            chunk("document.pdf", b"-1.7", 4),
            chunk("document.pdf", b"", 8, last=True),
            chunk("document.hocr", b"", 6, last=True, error="the disk is full"),
            summary(1),
        )
    ]
    outcome = await handler.handle(document_job(handler, document, formats=["pdf", "hocr"], text_mode="auto"), RecordedContext())
    request = server.requests[0]
    assert (list(request.formats), request.text_mode) == (
        [documents_pb2.OUTPUT_FORMAT_SEARCHABLE_PDF, documents_pb2.OUTPUT_FORMAT_HOCR],
        documents_pb2.TEXT_MODE_AUTO,
    )
    path = Path(results.root) / "documents/job-1/1/document.pdf"
    assert path.read_bytes() == b"%PDF-1.7"
    assert outcome.result["artifacts"][2] == {"name": "document.pdf", "media_type": "application/pdf", "uri": str(path), "size_bytes": 8}
    assert len(outcome.result["artifacts"]) == 3
    assert outcome.result["file_errors"] == {"document.hocr": "the disk is full"}


async def test_a_second_try_reads_all_pages_anew_where_a_file_is_asked_for(
    server: ScriptedServer, handler: DocumentHandler, document: Path
) -> None:
    server.script = [
        refuse(grpc.StatusCode.UNAVAILABLE, after=(page(1), page(2), chunk("document.pdf", b"%PDF"))),
        answer(page(1), page(2), page(3), chunk("document.pdf", b"%PDF", last=True), summary()),
    ]
    first = RecordedContext()
    job = document_job(handler, document, formats=["pdf"])
    with pytest.raises(OverloadError):
        await handler.handle(job, first)
    outcome = await handler.handle(job, RecordedContext(fence=2, checkpoint=first.checkpoints[-1]))
    assert list(server.requests[1].pages) == []
    assert (outcome.result["pages_read"], outcome.result["artifacts"][2]["size_bytes"]) == (3, 4)


async def test_where_text_came_from_and_how_good_the_picture_is_are_kept(
    server: ScriptedServer, handler: DocumentHandler, document: Path, results: ResultStore
) -> None:
    read = page(1, of=1)
    read.page.text_source = documents_pb2.TEXT_SOURCE_OCR
    read.page.quality.CopyFrom(documents_pb2.PageQuality(sharpness=0.25, glare=0.5, text_height=20, contrast=0.75))
    read.page.fields.add(label="Nama", value="Siti", confidence=0.5, polygon=read.page.lines[0].polygon)
    server.script = [answer(read, summary(1))]
    await handler.handle(document_job(handler, document), RecordedContext())
    (kept,) = json.loads((Path(results.root) / "documents/job-1/1/document.json").read_text())["pages"]
    assert kept["text_source"] == "ocr"
    assert (kept["fields"][0]["label"], kept["fields"][0]["value"], kept["fields"][0]["polygon"][2]) == ("Nama", "Siti", [30, 12])
    assert kept["quality"] == {"sharpness": 0.25, "glare": 0.5, "text_height": 20, "contrast": 0.75}


@pytest.mark.parametrize("asked", [{"formats": ["docx"]}, {"text_mode": "both"}])
def test_a_format_or_mode_that_is_not_known_is_refused_when_it_is_asked_for(asked: dict[str, Any]) -> None:
    with pytest.raises(PoisonError, match=r"formats \(hocr, alto, pdf, tsv\)"):
        request_message(key="job-1", document_uri="/data/a.pdf", **asked)
