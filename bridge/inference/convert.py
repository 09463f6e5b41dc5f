"""What the servers answer, and lab tests both ways: protobuf messages and the client's values."""

from __future__ import annotations

import json

from lamina.v1 import documents_pb2, labs_pb2, slides_pb2

from bridge.errors import TransientError
from bridge.inference.documents import DocumentChunk, DocumentEvent, DocumentPage, DocumentSummary, KeyField, Line, PageQuality, Word
from bridge.inference.labs import Alias, LabClassification, LabClassifications, LabReading, LabTest, LoincCandidate, MatchStatus
from bridge.inference.slides import Artifact, ArtifactChunk, SlideCheckpoint, SlideEvent, SlideProgress, SlideResult

_FLAGS = {
    labs_pb2.RESULT_FLAG_LOW: "low",
    labs_pb2.RESULT_FLAG_NORMAL: "normal",
    labs_pb2.RESULT_FLAG_HIGH: "high",
    labs_pb2.RESULT_FLAG_ABNORMAL: "abnormal",
}
_TEXT_SOURCES = {documents_pb2.TEXT_SOURCE_OCR: "ocr", documents_pb2.TEXT_SOURCE_LAYER: "layer"}
_STATUSES = {
    labs_pb2.MATCH_STATUS_MATCHED: MatchStatus.MATCHED,
    labs_pb2.MATCH_STATUS_NO_MATCH: MatchStatus.NO_MATCH,
    labs_pb2.MATCH_STATUS_NEEDS_REVIEW: MatchStatus.NEEDS_REVIEW,
}


def slide_event(message: slides_pb2.AnalyzeSlideResponse) -> SlideEvent | None:
    """One event of an analysis; None for an event of a newer server that we do not know."""
    match message.WhichOneof("event"):
        case "progress":
            return _progress(message.progress)
        case "chunk":
            return ArtifactChunk(name=message.chunk.name, offset=message.chunk.offset, data=message.chunk.data)
        case "checkpoint":
            return _slide_checkpoint(message.checkpoint)
        case "result":
            return _slide_result(message.result)
        case _:
            return None


def _progress(message: slides_pb2.AnalysisProgress) -> SlideProgress:
    return SlideProgress(
        stage=message.stage,
        tiles_done=message.tiles_done,
        tiles_total=message.tiles_total,
        tiles_per_second=message.tiles_per_second,
        seconds_left=message.seconds_left if message.HasField("seconds_left") else None,
    )


def _slide_checkpoint(message: slides_pb2.SlideCheckpoint) -> SlideCheckpoint:
    return SlideCheckpoint(
        part=message.part,
        file=Artifact(
            name=message.name,
            media_type="application/octet-stream",
            uri=message.uri,
            size_bytes=message.size_bytes,
            sha256=message.sha256,
        ),
        tiles_done=message.tiles_done,
        tiles_total=message.tiles_total,
        resumed=message.resumed,
    )


def _slide_result(message: slides_pb2.SlideAnalysis) -> SlideResult:
    try:
        report = json.loads(message.report_json) if message.report_json else {}
    except ValueError as error:
        raise TransientError(f"the inference server sent a slide report that is not JSON ({error}).") from error
    return SlideResult(
        analysis=message.analysis,
        model=message.model,
        engine=message.engine,
        report=report,
        artifacts=tuple(
            Artifact(name=one.name, media_type=one.media_type, uri=one.uri, size_bytes=one.size_bytes, sha256=one.sha256)
            for one in message.artifacts
        ),
        width=message.info.width,
        height=message.info.height,
        tiles_analyzed=message.tiles_analyzed,
        tiles_skipped=message.tiles_skipped,
        duration_seconds=message.duration_seconds,
        tiles_resumed=message.tiles_resumed,
        resume_refused=message.resume_refused,
    )


def document_event(message: documents_pb2.RecognizeDocumentResponse) -> DocumentEvent | None:
    """One event of a recognition; None for an event of a newer server that we do not know."""
    match message.WhichOneof("event"):
        case "page":
            return _page(message.page)
        case "chunk":
            return _document_chunk(message.chunk)
        case "summary":
            return _summary(message.summary)
        case _:
            return None


def _word(message: documents_pb2.Word) -> Word:
    return Word(text=message.text, confidence=message.confidence, polygon=_corners(message.polygon), read_text=message.read_text)


def _page(message: documents_pb2.DocumentPage) -> DocumentPage:
    return DocumentPage(
        page_number=message.page_number,
        page_count=message.page_count,
        width=message.width,
        height=message.height,
        lines=tuple(
            Line(
                text=line.text,
                confidence=line.confidence,
                polygon=_corners(line.polygon),
                words=tuple(map(_word, line.words)),
            )
            for line in message.lines
        ),
        text=message.text,
        error=message.error,
        text_source=_TEXT_SOURCES.get(message.text_source, ""),
        quality=_quality(message.quality) if message.HasField("quality") else None,
        fields=tuple(
            KeyField(label=one.label, value=one.value, confidence=one.confidence, polygon=_corners(one.polygon)) for one in message.fields
        ),
    )


def _quality(message: documents_pb2.PageQuality) -> PageQuality:
    return PageQuality(
        sharpness=message.sharpness if message.HasField("sharpness") else None,
        glare=message.glare,
        text_height=message.text_height,
        contrast=message.contrast,
    )


def _document_chunk(message: documents_pb2.DocumentChunk) -> DocumentChunk:
    return DocumentChunk(
        name=message.name,
        media_type=message.media_type,
        offset=message.offset,
        data=message.data,
        last=message.last,
        error=message.error,
    )


def _corners(points: object) -> tuple[tuple[float, float], ...]:
    # A tenth of a pixel is finer than any detector; it keeps the stored JSON a third of its size.
    return tuple((round(point.x, 1), round(point.y, 1)) for point in points)  # type: ignore[attr-defined]


def _summary(message: documents_pb2.DocumentSummary) -> DocumentSummary:
    return DocumentSummary(
        page_count=message.page_count,
        failed_pages=message.failed_pages,
        media_type=message.media_type,
        mean_confidence=message.mean_confidence,
        models=tuple(message.models),
        duration_seconds=message.duration_seconds,
    )


def lab_test(test: LabTest) -> labs_pb2.LabTest:
    """One test, as the server wants it."""
    return labs_pb2.LabTest(
        id=test.id, name=test.name, value=test.value, unit=test.unit, specimen=test.specimen, reference_range=test.reference_range
    )


def alias(known: Alias) -> labs_pb2.Alias:
    """A reviewed name, as the server wants it."""
    return labs_pb2.Alias(name=known.name, code=known.code, unit=known.unit, specimen=known.specimen)


def lab_classifications(message: labs_pb2.ClassifyLabTestsResponse) -> LabClassifications:
    """What the tests are."""
    return LabClassifications(
        tests=tuple(_classification(one) for one in message.classifications), model=message.model, catalogue=message.catalogue
    )


def _classification(message: labs_pb2.LabTestClassification) -> LabClassification:
    return LabClassification(
        id=message.id,
        category=message.category,
        category_confidence=message.category_confidence,
        # A status that a newer server may send is left to a person.
        status=_STATUSES.get(message.status, MatchStatus.NEEDS_REVIEW),
        candidates=tuple(
            LoincCandidate(
                code=one.code,
                long_common_name=one.long_common_name,
                component=one.component,
                system=one.system,
                score=one.score,
                reasons=tuple(one.reasons),
            )
            for one in message.candidates
        ),
        explanation=message.explanation,
        reading=_reading(message.result) if message.HasField("result") else None,
    )


def _reading(message: labs_pb2.LabResult) -> LabReading:
    return LabReading(
        number=message.number if message.HasField("number") else None,
        unit=message.unit,
        converted_number=message.converted_number if message.HasField("converted_number") else None,
        converted_unit=message.converted_unit,
        flag=_FLAGS.get(message.flag, ""),
    )
