"""DocumentService: messages to values and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

import grpc.aio
from lamina.v1 import documents_pb2, documents_pb2_grpc

from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Device
from inference_server.service.caller import caller_of
from inference_server.tasks.documents.outputs.port import FileChunk, OutputFormat
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.values import DocumentSummary, Line, PageQuality, PageResult, Quad, TextMode, TextSource, Word

_TEXT_MODES = {
    documents_pb2.TEXT_MODE_UNSPECIFIED: TextMode.OCR,
    documents_pb2.TEXT_MODE_OCR: TextMode.OCR,
    documents_pb2.TEXT_MODE_LAYER: TextMode.LAYER,
    documents_pb2.TEXT_MODE_AUTO: TextMode.AUTO,
}
_DEVICES = {documents_pb2.DEVICE_GPU: Device.GPU, documents_pb2.DEVICE_CPU: Device.CPU}
_TEXT_SOURCES = {TextSource.OCR: documents_pb2.TEXT_SOURCE_OCR, TextSource.LAYER: documents_pb2.TEXT_SOURCE_LAYER}
_OUTPUT_FORMATS = {
    documents_pb2.OUTPUT_FORMAT_JSON: OutputFormat.JSON,
    documents_pb2.OUTPUT_FORMAT_TEXT: OutputFormat.TEXT,
    documents_pb2.OUTPUT_FORMAT_HOCR: OutputFormat.HOCR,
    documents_pb2.OUTPUT_FORMAT_ALTO: OutputFormat.ALTO,
    documents_pb2.OUTPUT_FORMAT_SEARCHABLE_PDF: OutputFormat.SEARCHABLE_PDF,
    documents_pb2.OUTPUT_FORMAT_TSV: OutputFormat.TSV,
}

Known = TypeVar("Known", bound=StrEnum)


class DocumentServicer(documents_pb2_grpc.DocumentServiceServicer):
    """Reads documents for gRPC callers."""

    def __init__(self, reader: DocumentReader) -> None:
        self._reader = reader

    async def RecognizeDocument(  # noqa: N802 - gRPC names its methods so
        self,
        request: documents_pb2.RecognizeDocumentRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[documents_pb2.RecognizeDocumentResponse]:
        """Stream each page and what it adds to the files asked for, then the summary."""
        device = _known(_DEVICES, request.device, "device") if request.device else None
        caller = replace(caller_of(context, request.priority), device=device)
        async with aclosing(self._reader.read(_request(request), caller)) as events:
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
        text_mode=_known(_TEXT_MODES, message.text_mode, "text_mode"),
        formats=tuple(_known(_OUTPUT_FORMATS, format_, "formats") for format_ in message.formats),
    )


def _known(values: Mapping[Any, Known], number: int, name: str) -> Known:
    if number not in values:
        raise InvalidInput(f"{name} is {number}; expected one of {', '.join(sorted({value.name for value in values.values()}))}.")
    return values[number]


def _response(event: PageResult | FileChunk | DocumentSummary) -> documents_pb2.RecognizeDocumentResponse:
    if isinstance(event, FileChunk):
        return documents_pb2.RecognizeDocumentResponse(
            chunk=documents_pb2.DocumentChunk(
                name=event.name, media_type=event.media_type, offset=event.offset, data=event.data, last=event.last, error=event.error
            )
        )
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
            text_source=_TEXT_SOURCES[event.source] if event.source else documents_pb2.TEXT_SOURCE_UNSPECIFIED,
            quality=_quality(event.quality) if event.quality else None,
            fields=[
                documents_pb2.KeyField(label=one.label, value=one.value, confidence=one.confidence, polygon=_polygon(one.polygon))
                for one in event.fields
            ],
        )
    )


def _quality(quality: PageQuality) -> documents_pb2.PageQuality:
    return documents_pb2.PageQuality(
        sharpness=quality.sharpness, glare=quality.glare, text_height=quality.text_height, contrast=quality.contrast
    )


def _line(line: Line) -> documents_pb2.TextLine:
    return documents_pb2.TextLine(
        text=line.text,
        confidence=line.confidence,
        polygon=_polygon(line.polygon),
        words=map(_word, line.words),
    )


def _word(word: Word) -> documents_pb2.Word:
    return documents_pb2.Word(text=word.text, confidence=word.confidence, polygon=_polygon(word.polygon), read_text=word.read_text)


def _polygon(quad: Quad) -> list[documents_pb2.Point]:
    return [documents_pb2.Point(x=x, y=y) for x, y in quad.tolist()]
