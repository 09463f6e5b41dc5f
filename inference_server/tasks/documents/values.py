"""The values that pass between the parts of the documents task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

# An RGB page, uint8 [height, width, 3].
Page = NDArray[np.uint8]
# Four corners x, y in page pixels, clockwise from the top left of the text, float32 [4, 2].
Quad = NDArray[np.float32]
# The edges of a line of text, x, y in page pixels: the upper one from left to right, then the lower one back, float32 [2 N, 2].
# That of a straight line is a quad.
Outline = NDArray[np.float32]


def sides_of(quad: Quad) -> tuple[float, float]:
    """Width and height: of two sides that lie opposite the longer one, in pixels."""
    # Of so few numbers those of Python are sooner at hand than an array's.
    first, second, third, last = quad.tolist()
    return max(math.dist(first, second), math.dist(third, last)), max(math.dist(second, third), math.dist(last, first))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one document may cost. Checked before anything is decoded."""

    most_bytes: int = 128 * 1024 * 1024
    # Pages read in one request.
    most_pages: int = 2_000
    # Width times height of one page image; an A0 sheet at 200 dpi has 62 million.
    most_page_pixels: int = 100_000_000
    lowest_dpi: int = 36
    highest_dpi: int = 600
    # Dots per inch at which PDF pages are rendered when the request does not say.
    default_dpi: int = 200
    # Wall time of one page while it is worked on, and of a whole document, in seconds.
    most_page_seconds: float = 120.0
    most_document_seconds: float = 3600.0


class TextMode(StrEnum):
    """Where the text of a PDF page is to be taken from."""

    # What its picture shows.
    OCR = "ocr"
    # What the file itself says.
    LAYER = "layer"
    # The file's own text where it is sound, else what the picture shows.
    AUTO = "auto"


class TextSource(StrEnum):
    """Where the text of a page was taken from."""

    OCR = "ocr"
    LAYER = "layer"


@dataclass(frozen=True, kw_only=True)
class Word:
    """A run of characters without a space."""

    text: str
    # Mean confidence of its characters, 0 to 1.
    confidence: float
    polygon: Quad
    # What the recogniser read, where letters of it were mended; else empty.
    read_text: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Words that are read in one go."""

    text: str
    # Mean confidence of its characters, 0 to 1.
    confidence: float
    polygon: Quad
    # From left to right.
    words: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class KeyField:
    """A label of a page, and its value."""

    # Without its colon.
    label: str
    value: str
    # Of the value's words, by their length, 0 to 1.
    confidence: float
    # Of the value.
    polygon: Quad


@dataclass(frozen=True, kw_only=True)
class TextLayer:
    """What a PDF page says of itself, in pixels of the picture that it would give."""

    # In reading order.
    lines: tuple[Line, ...]
    width: int
    height: int
    # Whether it is likely all of the page's text, and right.
    is_sound: bool
    # The clockwise turn after which most of it stands upright: 0, 90, 180 or 270.
    rotation_degrees: int


@dataclass(frozen=True, kw_only=True)
class PageQuality:
    """How good the picture of a page is."""

    # Variance of the lines' second derivatives, each at one height and with its own contrast as 1, in the direction in which they are least
    # sharp; None without lines.
    sharpness: float | None
    # Share of the area of the text that is burnt out although the paper is not, or although text fades into it, 0 to 1.
    glare: float
    # Median of the lines, in pixels; 0 without lines.
    text_height: float
    # Median over the lines of paper less ink, 0 to 1; 0 without lines.
    contrast: float


@dataclass(frozen=True, kw_only=True)
class PageResult:
    """What was read on one page."""

    # From 1.
    page_number: int
    # Pages of the document in all, asked for or not.
    page_count: int
    # Of the page image, turned as the file says and no further, in pixels; 0 when the page could not be read.
    width: int
    height: int
    # In reading order. Coordinates are of the page as it came, whatever its rotation.
    lines: tuple[Line, ...] = ()
    # The clockwise turn after which the text stands upright, as told by the text: 0, 90, 180 or 270.
    rotation_degrees: int = 0
    # Why the page could not be read; empty when it was.
    error: str = ""
    # Where the text was taken from; None when the page could not be read.
    source: TextSource | None = None
    # None where no picture was made.
    quality: PageQuality | None = None
    # In reading order.
    fields: tuple[KeyField, ...] = ()

    @property
    def text(self) -> str:
        """The text in reading order, lines separated by line feeds."""
        return "\n".join(line.text for line in self.lines)


@dataclass(frozen=True, kw_only=True)
class DocumentSummary:
    """What was read in all."""

    page_count: int
    failed_pages: int
    media_type: str
    # Of all words, 0 to 1; 0 when there are none.
    mean_confidence: float
    # Detector and recogniser that ran, as name:version@engine:precision.
    models: tuple[str, ...]
    duration_seconds: float
