"""DocumentService: messages to values and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
from lamina.v1 import documents_pb2, documents_pb2_grpc

from inference_server.service.caller import caller_of
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.values import DocumentSummary, Line, PageResult, Quad


class DocumentServicer(documents_pb2_grpc.DocumentServiceServicer):
    """Reads documents for gRPC callers."""

    def __init__(self, reader: DocumentReader) -> None:
        self._reader = reader

    async def RecognizeDocument(  # noqa: N802 - gRPC names its methods so
        self,
        request: documents_pb2.RecognizeDocumentRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[documents_pb2.RecognizeDocumentResponse]:
        """Stream each page, then the summary."""
        async with aclosing(self._reader.read(_request(request), caller_of(context, request.priority))) as events:
            async for event in events:
                yield _response(event)


def _request(message: documents_pb2.RecognizeDocumentRequest) -> DocumentRequest:
    return DocumentRequest(
        content=message.content if message.WhichOneof("source") == "content" else None,
        uri=message.document_uri,
        request_id=message.request_id,
        dpi=message.dpi,
        password=message.password,
        pages=tuple(message.pages),
    )


def _response(event: PageResult | DocumentSummary) -> documents_pb2.RecognizeDocumentResponse:
    if isinstance(event, DocumentSummary):
        return documents_pb2.RecognizeDocumentResponse(
            summary=documents_pb2.DocumentSummary(
                page_count=event.page_count,
                failed_pages=event.failed_pages,
                media_type=event.media_type,
                mean_confidence=event.mean_confidence,
                models=event.models,
                duration_seconds=event.duration_seconds,
            )
        )
    return documents_pb2.RecognizeDocumentResponse(
        page=documents_pb2.DocumentPage(
            page_number=event.page_number,
            page_count=event.page_count,
            width=event.width,
            height=event.height,
            lines=[_line(line) for line in event.lines],
            rotation_degrees=event.rotation_degrees,
            text=event.text,
            error=event.error,
        )
    )


def _line(line: Line) -> documents_pb2.TextLine:
    return documents_pb2.TextLine(
        text=line.text,
        confidence=line.confidence,
        polygon=_polygon(line.polygon),
        words=[documents_pb2.Word(text=word.text, confidence=word.confidence, polygon=_polygon(word.polygon)) for word in line.words],
    )


def _polygon(quad: Quad) -> list[documents_pb2.Point]:
    return [documents_pb2.Point(x=x, y=y) for x, y in quad.tolist()]
