"""Words that cards have in print, told although some of their letters were misread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

# Letters that are taken for one another, as one of them.
_SAME = str.maketrans("1l|!05847", "iiiiosbat")
_WORD = re.compile(r"[\w|!]+")
# Where no space was read: `JenisKelamin`, `LAKIGol`, `NIK3273…`, `1985Jenis`.
_SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z]{2})(?=[A-Z][a-z]{2})|(?<=[A-Za-z])(?=\d{4})|(?<=\d)(?=[A-Z][a-z]{2})")
# A word of a list has no more words than this.
_MOST_WORDS = 5


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A word of a text."""

    text: str
    # Where it stands.
    start: int
    end: int


def skeleton(text: str) -> str:
    """The letters of a text, those that look alike as one, without spaces and marks."""
    same = "".join(character for character in text.lower().translate(_SAME) if character.isalnum())
    return same.replace("rn", "m").replace("vv", "w")


def distance(one: str, other: str) -> int:
    """How many characters are to be changed, added or left out (Levenshtein)."""
    before = list(range(len(other) + 1))
    for row, left in enumerate(one, start=1):
        now = [row]
        for column, right in enumerate(other, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]


def most_wrong(letters: int) -> int:
    """Of so many letters, how many may be misread and the word still be told: none of 3, and a quarter at most."""
    return 0 if letters <= 3 else 1 if letters <= 7 else 2 if letters <= 11 else 3


def pieces_of(text: str) -> Iterator[Piece]:
    """The words of a text, those without a space between them too."""
    for word in _WORD.finditer(text):
        cuts = [0, *(seam.start() for seam in _SEAM.finditer(word.group())), len(word.group())]
        for start, end in pairwise(cuts):
            if end > start:
                yield Piece(text=word.group()[start:end], start=word.start() + start, end=word.start() + end)


def word_told(text: str, known: Iterable[str]) -> tuple[str, int, int] | None:
    """The word of a closed list with which a text begins, and where it stands; None where it is none of them.

    What follows is no part of it. Of several that it may be, the one with the most letters right.
    """
    pieces = list(islice(pieces_of(text), _MOST_WORDS))
    best: tuple[int, str, int] | None = None
    for word in known:
        letters = skeleton(word)
        for count in range(1, len(pieces) + 1):
            read = skeleton(text[pieces[0].start : pieces[count - 1].end])
            if abs(len(read) - len(letters)) > most_wrong(len(letters)):
                continue
            wrong = distance(read, letters)
            right = len(read) - 2 * wrong
            if wrong <= most_wrong(len(letters)) and (best is None or right > best[0]):
                best = (right, word, pieces[count - 1].end)
    return (best[1], pieces[0].start, best[2]) if best else None
