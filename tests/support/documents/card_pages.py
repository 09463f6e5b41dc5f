"""Pages of cards as an engine reads them: lines, words, boxes. Each character is 10 pixels wide and 15 high."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, radians, sin

from bridge.inference.documents import DocumentPage, Line, PageQuality, Word
from tests.support.documents.pdf import Text

GOOD = PageQuality(sharpness=0.3, glare=0.0, text_height=30, contrast=0.8)
# Of a letter in Helvetica, of its size.
_ADVANCE = 0.5
Corners = tuple[tuple[float, float], ...]


def page(
    lines: Iterable[str | tuple[float, float, str]],
    *,
    quality: PageQuality | None = GOOD,
    confidence: float = 0.99,
    number: int = 1,
    turned: float = 0,
    fanned: float = 0,
) -> DocumentPage:
    """Lines in the order in which they are read: texts stand 20 pixels below one another, others where they say (x, y).

    `turned`: the whole page, in degrees clockwise. `fanned`: how much steeper rows are with each pixel below the middle of a card, as in a
    photograph from one side.
    """
    read = [
        _line(
            *(line if isinstance(line, tuple) else (0.0, 20.0 * row, line)), confidence=confidence, seen=_Seen(turned=turned, fanned=fanned)
        )
        for row, line in enumerate(lines)
    ]
    text = "\n".join(line.text for line in read)
    return DocumentPage(page_number=number, page_count=1, width=400, height=300, lines=tuple(read), text=text, error="", quality=quality)


def page_of_texts(texts: Iterable[Text]) -> DocumentPage:
    """A composed page as one would read it who makes no mistakes, in the order of its texts."""
    lines = []
    for text in texts:
        advance, top, words, place = _ADVANCE * text.size, text.y - text.size, [], text.x
        for word in text.text.split(" "):
            words.append(Word(text=word, confidence=0.99, polygon=box(place, top, advance * len(word), 1.2 * text.size)))
            place += advance * (len(word) + 1)
        whole = box(text.x, top, advance * len(text.text), 1.2 * text.size)
        lines.append(Line(text=text.text, confidence=0.99, polygon=whole, words=tuple(words)))
    text_of_all = "\n".join(line.text for line in lines)
    return DocumentPage(page_number=1, page_count=1, width=400, height=300, lines=tuple(lines), text=text_of_all, error="", quality=GOOD)


def box(left: float, top: float, width: float, height: float = 15) -> Corners:
    """The corners of what stands there."""
    return ((left, top), (left + width, top), (left + width, top + height), (left, top + height))


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """From where a page is looked at."""

    turned: float
    fanned: float

    def box(self, left: float, top: float, width: float) -> Corners:
        across, along = sin(radians(self.turned)), cos(radians(self.turned))
        fan = [(x, y + x * (y - 130) * self.fanned) for x, y in box(left, top, width)]
        return tuple((x * along - y * across, x * across + y * along) for x, y in fan)


def _line(left: float, top: float, text: str, *, confidence: float, seen: _Seen) -> Line:
    words, place = [], left
    for word in text.split(" "):
        words.append(Word(text=word, confidence=confidence, polygon=seen.box(place, top, 10 * len(word))))
        place += 10 * (len(word) + 1)
    return Line(text=text, confidence=confidence, polygon=seen.box(left, top, 10 * len(text)), words=tuple(words))
