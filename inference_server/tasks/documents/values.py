"""The values that pass between the parts of the documents task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# An RGB page, uint8 [height, width, 3].
Page = NDArray[np.uint8]
# Four corners x, y in page pixels, clockwise from the top left of the text, float32 [4, 2].
Quad = NDArray[np.float32]


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


@dataclass(frozen=True, kw_only=True)
class Word:
    """A run of characters without a space."""

    text: str
    # Mean confidence of its characters, 0 to 1.
    confidence: float
    polygon: Quad


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
