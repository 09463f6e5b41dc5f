"""Pages as if they had been read, and the files that are made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from inference_server.tasks.documents.outputs.port import Writer
from inference_server.tasks.documents.values import DocumentSummary, Line, PageResult, TextSource, Word

SUMMARY = DocumentSummary(
    page_count=2,
    failed_pages=0,
    media_type="image/png",
    mean_confidence=0.9,
    models=("reader:1@onnxruntime:float32",),
    duration_seconds=0.5,
)


def line(words: Sequence[str], *, x: float = 10, y: float = 30, height: float = 20, degrees: float = 0, advance: float = 10) -> Line:
    """Words from the top left corner on, turned about it clockwise by `degrees`."""
    made, along = [], 0.0
    for word in words:
        made.append(Word(text=word, confidence=0.9, polygon=_quad(x, y, along, along + advance * len(word), height, degrees)))
        along += advance * (len(word) + 1)
    return Line(text=" ".join(words), confidence=0.9, polygon=_quad(x, y, 0, along - advance, height, degrees), words=tuple(made))


def _quad(x: float, y: float, start: float, end: float, height: float, degrees: float) -> np.ndarray:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.array([(start, 0), (end, 0), (end, height), (start, height)])
    return (corners @ np.array([(cosine, sine), (-sine, cosine)]) + (x, y)).astype(np.float32)


def page(*lines: Line, number: int = 1, of: int = 1, size: tuple[int, int] = (400, 300), error: str = "") -> PageResult:
    return PageResult(
        page_number=number,
        page_count=of,
        width=0 if error else size[0],
        height=0 if error else size[1],
        lines=lines,
        error=error,
        source=None if error else TextSource.OCR,
    )


def written(writer: Writer, pages: Iterable[PageResult], summary: DocumentSummary = SUMMARY) -> bytes:
    """The whole file."""
    try:
        return b"".join(piece for one in pages for piece in writer.page(one)) + b"".join(writer.end(summary))
    finally:
        writer.close()
