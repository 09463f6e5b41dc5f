"""Lines as they were read, whatever read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from bridge.inference.documents import DocumentPage, Line, Word

# Corners (x, y) in pixels of the page, clockwise from the top left of the text.
Polygon = tuple[tuple[float, float], ...]
# No row of a card is longer; what is beyond is not looked at.
_MOST_CHARACTERS = 1000
# Nor has a page of a card more lines, or a document more pages with one.
_MOST_LINES, _MOST_PAGES = 300, 4


@dataclass(frozen=True, kw_only=True)
class ReadLine:
    """A line of text."""

    text: str
    # From 1.
    page: int = 1
    # Joined by single spaces they are the text; none where the engine tells no places.
    words: tuple[Word, ...] = ()


def lines_of_pages(pages: Iterable[DocumentPage]) -> list[ReadLine]:
    """The first lines of the first pages, in reading order, with the letters that were read.

    What the server takes for a known word may be a name; labels are told though they are misread.
    """
    return [_line(page.page_number, line) for page in islice(pages, _MOST_PAGES) for line in page.lines[:_MOST_LINES]]


def lines_of_text(text: str) -> list[ReadLine]:
    """The first lines of a text without places, as many as of pages; empty ones are none."""
    lines = (line for line in text.splitlines() if line.strip())
    return [ReadLine(text=plain(line[:_MOST_CHARACTERS])) for line in islice(lines, _MOST_LINES * _MOST_PAGES)]


def plain(text: str) -> str:
    """A text as long, with the digits of any script, full-width letters, dashes and spaces as a keyboard has them."""
    return text if text.isascii() else "".join(map(_plain_character, text))


def _plain_character(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    kind = unicodedata.category(character)
    if kind in {"Pd", "Zs"}:
        return "-" if kind == "Pd" else " "
    if character == "\N{MINUS SIGN}":
        return "-"
    # Full-width forms alone: what else has a compatible form may be a letter of a name.
    return unicodedata.normalize("NFKC", character) if unicodedata.east_asian_width(character) == "F" else character


def _line(page: int, line: Line) -> ReadLine:
    words = [word for word in line.words if word.text.split()]
    if "".join("".join(word.text for word in words).split()) != "".join(line.text.split()):
        words = [Word(text=line.text, confidence=line.confidence, polygon=line.polygon)]
    if not all(len(word.polygon) == 4 for word in words):
        return ReadLine(text=plain(line.text[:_MOST_CHARACTERS]), page=page)
    # A word has a character at least, and a space behind it.
    words = words[: _MOST_CHARACTERS // 2]
    told = tuple(Word(text=plain(word.read_text or word.text), confidence=word.confidence, polygon=word.polygon) for word in words)
    return ReadLine(text=" ".join(word.text for word in told), page=page, words=told)
