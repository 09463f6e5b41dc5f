"""Lines as they were read, whatever read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridge.inference.values import DocumentPage, Word

# Corners (x, y) in pixels of the page, clockwise from the top left of the text.
Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class ReadLine:
    """A line of text."""

    text: str
    # From 1.
    page: int = 1
    # Joined by single spaces they are the text; none where the engine tells no places.
    words: tuple[Word, ...] = ()

    def part(self, start: int, end: int) -> tuple[float | None, Polygon]:
        """The confidence and the polygon of the words that a part of the text touches."""
        touched, place = [], 0
        for word in self.words:
            if place < end and place + len(word.text) > start:
                touched.append(word)
            place += len(word.text) + 1
        if not touched:
            return None, ()
        length = sum(len(word.text) for word in touched)
        confidence = sum(word.confidence * len(word.text) for word in touched) / length
        first, last = touched[0].polygon, touched[-1].polygon
        return round(confidence, 4), (first[0], last[1], last[2], first[3])


def lines_of_pages(pages: Iterable[DocumentPage]) -> list[ReadLine]:
    """The lines of pages, in reading order."""
    return [_line(page.page_number, line.text, line.words) for page in pages for line in page.lines]


def lines_of_text(text: str) -> list[ReadLine]:
    """The lines of a text without places."""
    return [ReadLine(text=line) for line in text.splitlines()]


def _line(page: int, text: str, words: Sequence[Word]) -> ReadLine:
    places_fit = " ".join(word.text for word in words) == text
    return ReadLine(text=text, page=page, words=tuple(words) if places_fit else ())
