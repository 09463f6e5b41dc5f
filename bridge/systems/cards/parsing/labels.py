"""Labels in a row, told from the same words in values by where they stand and by what follows."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bridge.systems.cards.parsing.fitting import Fit, fit, is_of_another_field
from bridge.systems.cards.parsing.provinces import headed_province
from bridge.systems.cards.parsing.rows import Row
from bridge.systems.cards.parsing.spelling import Piece, distance, most_wrong, pieces_of, skeleton
from bridge.systems.cards.parsing.vocabulary import LABELS, STREETS, WEAK

# By skeleton: the label, and of how many words it is.
_SPELLED = {skeleton(spelling): (name, len(list(pieces_of(spelling)))) for name, spellings in LABELS.items() for spelling in spellings}
_WEAK = {skeleton(spelling) for spelling in WEAK}
_NUMBERED = {skeleton(spelling) for spelling in ("NPWP 15", "NPWP 16")}
_LEAST_DIGITS = 15
_HOUSE_NUMBER = re.compile(r"\w\W+(?:NO|NOMOR|NOMER|KAV|KM)\W*$", re.IGNORECASE)
_COLON = re.compile(r"[\s.)\]]*[:;=]")
# A label has no more words, and one that we do not know is no longer.
_MOST_WORDS = 5
_MOST_LETTERS = 32
# From so many letters on a word is told by itself, though one is misread, and of so many for each that is.
_TELLING, _TELLING_FOR_EACH = 8, 5


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label in a row."""

    # Of the vocabulary, or `province`; empty for one that is in no list.
    name: str
    # From its first letter to where its value begins.
    start: int
    end: int
    # Where its value ends, if it tells that itself; 0 where that is at the next label.
    until: int = 0


def label_of(text: str) -> str:
    """The name of the label that a whole text is; empty where it is none."""
    return _SPELLED.get(skeleton(text), ("",))[0]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Words that are spelled like a label."""

    row: Row
    pieces: Sequence[Piece]
    # Of its words, by their places among the pieces.
    first: int
    last: int
    # Where its value would begin.
    end: int
    # As the vocabulary has it, and how many characters of the words are not.
    spelling: str
    wrong: int
    # Whether something begins with it, and whether a colon follows.
    opens: bool
    colon: bool

    @property
    def name(self) -> str:
        return _SPELLED[self.spelling][0]

    @property
    def right(self) -> int:
        """How much of it is as the vocabulary has it."""
        return len(self.spelling) - 2 * self.wrong

    @property
    def words(self) -> int:
        return _SPELLED[self.spelling][1]

    @property
    def behind(self) -> str:
        """What follows, up to a wide gap."""
        return self.row.text[self.end : self.row.end_of_piece(self.end - 1)]

    @property
    def holds_another(self) -> bool:
        """Whether its last words alone are more of a label than all are, as in `a. Nama`, which is not `Agama`."""
        ends = (skeleton(self.row.text[piece.start : self.pieces[self.last].end]) for piece in self.pieces[self.first + 1 : self.last + 1])
        return any(end in _SPELLED and len(end) > self.right for end in ends)

    @property
    def is_before_another(self) -> bool:
        """Whether a label follows at once, as in the head of a table."""
        following = self.pieces[self.last + 1 : self.last + 2]
        return any(label_of(piece.text) and piece.text.istitle() for piece in following)

    @property
    def is_titled(self) -> bool:
        """Printed as `Agama` behind a value in capitals."""
        own, before = self.pieces[self.first].text, self.pieces[self.first - 1].text
        return own.istitle() and not any(map(str.islower, before))

    @property
    def is_part_of_another(self) -> bool:
        """Whether what follows ends in a colon: `Nama Kecil : …` is no `Nama`."""
        colon = self.row.text.find(":", self.end, self.row.end_of_piece(self.end - 1))
        words = [piece for piece in self.pieces[self.last + 1 : self.last + 5] if piece.end <= colon]
        return 0 < len(words) <= 3 and not _known_before(self.row, words, colon)


def labels_in(row: Row) -> list[Label]:
    """The labels of a row, from left to right."""
    head = headed_province(row.text[: row.end_of_piece(0)])
    found: list[Label] = [Label(name="province", start=0, end=head[0], until=head[1])] if head else []
    pieces = list(pieces_of(row.text))
    opening = _opening(row, pieces)
    for number, piece in enumerate(pieces):
        if found and piece.start < max(found[-1].end, found[-1].until):
            continue
        label = _label_at(row, pieces, number, opens=number in opening)
        if label and (label.name or not _is_of_address(row, label, found[-1:])):
            found.append(label)
    return found


def _is_of_address(row: Row, unknown: Label, before: Sequence[Label]) -> bool:
    """Whether words before a colon are a street and `NO`, as in `JL. MAWAR NO:7`: behind the label of an address, or as streets begin."""
    told = row.text[unknown.start : unknown.end]
    is_behind = any(label.name == "address" and not row.text[label.end : unknown.start].strip(" :.-") for label in before)
    return bool(_HOUSE_NUMBER.search(told)) and (is_behind or re.match(STREETS, told, re.IGNORECASE) is not None)


def _opening(row: Row, pieces: Sequence[Piece]) -> set[int]:
    """The words with which something begins: the row, or what stands beyond a wide gap."""
    starts = [piece.start for piece in pieces]
    return {bisect_left(starts, start) for start in (0, *row.breaks)}


def _label_at(row: Row, pieces: Sequence[Piece], first: int, *, opens: bool) -> Label | None:
    best: _Candidate | None = None
    for candidate in _candidates(row, pieces, first, opens=opens):
        if (best is None or candidate.right > best.right) and _is_label(candidate):
            best = candidate
    if best:
        return Label(name=best.name, start=pieces[first].start, end=best.end)
    return _unknown(row, pieces, first) if opens else None


def _candidates(row: Row, pieces: Sequence[Piece], first: int, *, opens: bool) -> Iterator[_Candidate]:
    start = pieces[first].start
    for last in range(first, min(first + _MOST_WORDS, len(pieces))):
        end = pieces[last].end
        if row.end_of_piece(start) < end or ":" in row.text[start:end]:
            return
        colon = _COLON.match(row.text, end)
        # What is misread is told only where a label is to be expected.
        found = _spelled(skeleton(row.text[start:end]), misread=opens or colon is not None)
        if found:
            spelling, wrong = found
            yield _Candidate(
                row=row,
                pieces=pieces,
                first=first,
                last=last,
                end=colon.end() if colon else end,
                spelling=spelling,
                wrong=wrong,
                opens=opens,
                colon=colon is not None,
            )


def _is_label(candidate: _Candidate) -> bool:
    """Whether words that are spelled like a label are one."""
    name, text = candidate.name, candidate.behind
    if name == "nik" and text.strip(" :.-") and not re.match(r"\W*\w*\d", text) and not candidate.is_before_another:
        return False
    if candidate.wrong and candidate.holds_another:
        return False
    # `ama : ISLAM` at the edge of a picture is the rest of `Agama`.
    if candidate.wrong and name == "name" and is_of_another_field(text.strip(" :.-")):
        return False
    # In `NPWP 16.123.456.7-890.000` the digits are of the number.
    if candidate.spelling in _NUMBERED and not candidate.colon and sum(map(str.isdigit, text)) < _LEAST_DIGITS:
        return False
    if candidate.colon:
        return candidate.wrong == 0 or len(candidate.spelling) > 4 or name == "name" or fit(name, text) is Fit.SURELY
    if candidate.spelling in _WEAK:
        return candidate.opens and candidate.wrong == 0 and (not text.strip() or fit(name, text) is Fit.SURELY)
    if not candidate.opens:
        return candidate.words > 1 or candidate.is_titled or (name == "nik" and fit(name, text) is Fit.SURELY)
    if candidate.wrong:
        # A word more would be too much: `JL. KELURAHAN` is no misread `Kelurahan`.
        is_telling = len(candidate.spelling) >= max(_TELLING, _TELLING_FOR_EACH * candidate.wrong)
        return is_telling or fit(name, text) is Fit.SURELY
    return not candidate.is_part_of_another


def _unknown(row: Row, pieces: Sequence[Piece], first: int) -> Label | None:
    """A label that is in no list: a few words before a colon."""
    start = pieces[first].start
    colon = row.text.find(":", start, row.end_of_piece(start))
    words = [piece for piece in pieces[first : first + _MOST_WORDS + 1] if piece.end <= colon]
    letters = sum(map(str.isalpha, row.text[start : max(start, colon)]))
    if not 0 < len(words) <= _MOST_WORDS or not 2 <= letters <= _MOST_LETTERS or _known_before(row, words[1:], colon):
        return None
    return Label(name="", start=start, end=colon + 1)


def _known_before(row: Row, words: Sequence[Piece], colon: int) -> bool:
    """Whether a label of the vocabulary ends at a colon."""
    return any(_spelled(skeleton(row.text[word.start : colon]), misread=True) for word in words)


@lru_cache(maxsize=4096)
def _spelled(letters: str, *, misread: bool) -> tuple[str, int] | None:
    """The spelling of a label that letters are, or may be meant as, and how many of them are wrong."""
    if letters in _SPELLED:
        return letters, 0
    if not misread:
        return None
    near = [
        (distance(letters, spelling), spelling) for spelling in _SPELLED if abs(len(spelling) - len(letters)) <= most_wrong(len(spelling))
    ]
    wrong, spelling = min(near, default=(len(letters), ""))
    return (spelling, wrong) if wrong <= most_wrong(len(spelling)) else None
