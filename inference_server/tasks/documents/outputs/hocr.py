"""hOCR 1.2: XHTML with places (http://kba.github.io/hocr-spec/1.2/)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from inference_server.tasks.documents.outputs.markup import MarkupWriter, attribute, text
from inference_server.tasks.documents.outputs.places import angle_of, box_around, box_of
from inference_server.tasks.documents.values import Line, PageResult, Quad

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<title></title>
<meta charset="utf-8"/>
<meta name="ocr-system" content="lamina"/>
<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_par ocr_line ocrx_word ocrp_wconf"/>
</head>
<body>
"""
# Text that is turned further has no baseline that `baseline` could tell.
_LEVEL_DEGREES = 45


def hocr_writer() -> MarkupWriter:
    """A page is one area of one paragraph: lines come in reading order."""
    return MarkupWriter(head=_HEAD, page=_page, end="</body>\n</html>\n")


def _page(page: PageResult) -> Iterator[str]:
    number, size = page.page_number, (page.width, page.height)
    # A page that could not be read keeps its place, and says why.
    error = f" data-error={attribute(page.error)}" if page.error else ""
    yield f'<div class="ocr_page" id="page_{number}" title="bbox 0 0 {page.width} {page.height}; ppageno {number - 1}"{error}>\n'
    if page.lines:
        box = box_around((line.polygon for line in page.lines), *size)
        title = f"bbox {box.left} {box.top} {box.right} {box.bottom}"
        yield f'<div class="ocr_carea" id="block_{number}_1" title="{title}">\n<p class="ocr_par" id="par_{number}_1" title="{title}">\n'
        for index, line in enumerate(page.lines, 1):
            yield from _line(line, f"{number}_{index}", size)
        yield "</p>\n</div>\n"
    yield "</div>\n"


def _line(line: Line, name: str, size: tuple[int, int]) -> Iterator[str]:
    height = float(np.hypot(*(line.polygon[3] - line.polygon[0])))
    title = f"{_bounds(line.polygon, size)}; {_slope(line.polygon, size)}; x_size {height:.1f}; x_wconf {_percent(line.confidence)}"
    yield f'<span class="ocr_line" id="line_{name}" title="{title}">'
    for index, word in enumerate(line.words, 1):
        title = f"{_bounds(word.polygon, size)}; x_wconf {_percent(word.confidence)}"
        yield f'{" " if index > 1 else ""}<span class="ocrx_word" id="word_{name}_{index}" title="{title}">{text(word.text)}</span>'
    yield "</span>\n"


def _bounds(quad: Quad, size: tuple[int, int]) -> str:
    box = box_of(quad, *size)
    return f"bbox {box.left} {box.top} {box.right} {box.bottom}"


def _slope(quad: Quad, size: tuple[int, int]) -> str:
    angle = angle_of(quad)
    if abs(angle) > _LEVEL_DEGREES:
        return f"textangle {angle % 360:.1f}"
    # From the lower left of the bounds: the slope to the right, and how far below (positive) it begins.
    box = box_of(quad, *size)
    slope = -math.tan(math.radians(angle))
    begins = float(quad[3][1]) - slope * (float(quad[3][0]) - box.left) - box.bottom
    return f"baseline {slope:.4f} {begins:.1f}"


def _percent(confidence: float) -> int:
    return round(100 * confidence)
