"""DocumentService over real gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from lamina.v1 import documents_pb2

from tests.support.documents.printed_pages import LAB_REPORT_TEXT, lab_report_pdf


async def test_pages_are_streamed_and_then_the_summary(stub: Any) -> None:
    call = stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(content=lab_report_pdf()))
    events = [event async for event in call]
    assert ["page", "page", "summary"] == [event.WhichOneof("event") for event in events]
    page, summary = events[0].page, events[-1].summary
    assert (LAB_REPORT_TEXT[0], 1, 2, 834, 556) == (page.text, page.page_number, page.page_count, page.width, page.height)
    line = page.lines[2]
    assert ("Hemoglobin 13.5 g/dL", ["Hemoglobin", "13.5", "g/dL"]) == (line.text, [word.text for word in line.words])
    assert [4, 4, 4, 4] == [len(item.polygon) for item in (line, *line.words)]
    assert line.words[0].polygon[0].x < line.words[0].polygon[1].x < line.words[1].polygon[0].x
    assert (2, 0, "application/pdf", 2) == (summary.page_count, summary.failed_pages, summary.media_type, len(summary.models))


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (documents_pb2.RecognizeDocumentRequest(), grpc.StatusCode.INVALID_ARGUMENT, "expected either its bytes"),
        (documents_pb2.RecognizeDocumentRequest(content=b""), grpc.StatusCode.INVALID_ARGUMENT, "empty (0 bytes)"),
        (documents_pb2.RecognizeDocumentRequest(content=b"Dear Sir,"), grpc.StatusCode.INVALID_ARGUMENT, "is text; expected a PDF"),
        (documents_pb2.RecognizeDocumentRequest(content=lab_report_pdf(), dpi=5), grpc.StatusCode.INVALID_ARGUMENT, "dpi is 5"),
        (documents_pb2.RecognizeDocumentRequest(content=lab_report_pdf(), pages=[9]), grpc.StatusCode.INVALID_ARGUMENT, "pages 1 to 2"),
        (
            documents_pb2.RecognizeDocumentRequest(content=lab_report_pdf(), device=9),
            grpc.StatusCode.INVALID_ARGUMENT,
            "device is 9; expected one of CPU, GPU",
        ),
        (documents_pb2.RecognizeDocumentRequest(document_uri="/etc/passwd"), grpc.StatusCode.PERMISSION_DENIED, "allowed root"),
    ],
)
async def test_errors_become_statuses(
    stub: Any,
    request_: documents_pb2.RecognizeDocumentRequest,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        [event async for event in stub.RecognizeDocument(request_)]
    assert code == failed.value.code()
    assert reason in str(failed.value.details())
