"""Characters of a line to words with places: the ink between two characters tells where a word ends, and where a space was missed."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.ink import Gaps, ink_height, ink_of
from inference_server.tasks.documents.recognition.lookalikes import in_postcode, told_by_context
from inference_server.tasks.documents.recognition.recogniser import Character, Crop
from inference_server.tasks.documents.recognition.spelling import Speller
from inference_server.tasks.documents.values import Quad, Word

# A gap without ink is a space that the recogniser missed when it is this wide, as a share of the height of the line's ink...
_SPACE_BY_HEIGHT = 0.6
# ...and this many times the gap that is usual within words of this line.
_SPACE_BY_USUAL = 3.0
# Where the recogniser thought of a space, though not first, with this likelihood, a gap is one when it is so many times the usual;
# between digits, which stand apart in some fonts, one of this share of the height.
_SPACE_LIKELY = 0.15
_SPACE_BY_USUAL_LIKELY = 1.3
_SPACE_BETWEEN_DIGITS = 0.4
# A gap of the first share of the height is a space when it is so many times the usual, and in letters that are set apart, as headings'
# are, which is told by usual gaps of the second share, so many times these.
_WIDE, _WIDE_BY_USUAL = 0.9, 1.5
_SET_APART, _APART_BY_USUAL = 0.35, 1.6
# Between a digit and a letter, and where the recogniser thought of one before a capital, it may be narrower: by height and by the usual.
_BESIDE_DIGIT, _BESIDE_DIGIT_BY_USUAL = 0.4, 3.0
_BEFORE_CAPITAL_LIKELY, _BEFORE_CAPITAL_BY_USUAL = 0.05, 2.0
# Fewer gaps within words tell nothing of the usual one, which is at most this share of the height then.
_TELLING_GAPS, _MOST_USUAL = 3, 0.3
# Where known words would be parted, a space needs less: so many times the usual gap, or this likelihood.
_SPACE_BY_USUAL_KNOWN = 1.25
_SPACE_THOUGHT_OF = 0.01
# Nothing is put after the first or before the second: in fonts of one width they stand far from their word.
_OPENING, _CLOSING = frozenset("([{<«\"'-/@#$"), frozenset(".,;:!?)]}>»\"'-/%")
# What a rule is read as, such as that of a blank to fill in: rules are no ink, so that nothing is known of gaps in them.
_OF_RULES = frozenset("_=–—")
# So many pixels of a line aside a letter may be told of its ink.
_BESIDE_INK = 6
# Scripts that are written without spaces.
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "FULLWIDTH")


@dataclass(frozen=True, kw_only=True)
class _Gap:
    """The widest run of columns without ink between two characters, in pixels of the crop."""

    start: int
    end: int
    # Whether it is as wide as it is since a letter beside it is pale, not since a word ends there.
    lacks_ink: bool = False

    @property
    def width(self) -> int:
        return self.end - self.start


def words_of(characters: Sequence[Character], crop: Crop, speller: Speller) -> list[Word]:
    """Group characters into words, left to right; each word's polygon lies within the crop's quad. `speller`: of the page."""
    ink = ink_of(crop.image)
    visible = [character for character in characters if not character.text.isspace()]
    if not visible:
        return []
    columns = np.asarray(ink.any(axis=0))
    gaps = _gaps(visible, columns)
    breaks = _breaks(visible, gaps, _spaced_after(characters), ink_height(ink), speller)
    starts, ends = [0, *(index + 1 for index in breaks)], [*(index + 1 for index in breaks), len(visible)]
    texts = ["".join(character.text for character in visible[start:end]) for start, end in zip(starts, ends, strict=True)]
    words = []
    for start, end, before, after in zip(
        starts, ends, itertools.accumulate(texts, "{} {}".format, initial=""), [*texts[1:], ""], strict=False
    ):
        left = gaps[start - 1].end if start else _first_ink(columns, visible[0].x)
        right = gaps[end - 1].start if end < len(visible) else crop.width - _first_ink(columns[::-1], crop.width - visible[-1].x)
        words.append(word_of(visible[start:end], crop.quad(left, max(right, left + 1)), speller, before, after))
    return words


def _breaks(visible: Sequence[Character], gaps: Sequence[_Gap], spaced: Sequence[bool], height: int, speller: Speller) -> list[int]:
    """Behind which characters a word ends, but for the last. `spaced`: whether a space was read there; `height`: of the line's ink."""
    usual = _usual_gap([gap.width for gap, space in zip(gaps, spaced, strict=False) if not space], height)
    breaks = [
        index for index, gap in enumerate(gaps) if spaced[index] or _is_missed_space(gap, usual, height, visible[index], visible[index + 1])
    ]
    # A narrow one may part a word that is one: where a letter lost its ink, or most of it.
    around = zip((-1, *breaks), breaks, (*breaks[1:], len(visible) - 1), strict=False)
    breaks = [
        index
        for start, index, end in around
        if gaps[index].width >= height or not speller.is_one(visible[start + 1 : index + 1], visible[index + 1 : end + 1])
    ]
    may_part = [
        gap.width >= _SPACE_BY_USUAL_KNOWN * usual or visible[index].space_after >= _SPACE_THOUGHT_OF for index, gap in enumerate(gaps)
    ]
    return sorted({*breaks, *_breaks_by_words(visible, breaks, may_part, speller)})


def _breaks_by_words(visible: Sequence[Character], breaks: Sequence[int], may_part: Sequence[bool], speller: Speller) -> list[int]:
    """Where words that were read as one are parted, as positions of the characters before."""
    found: list[int] = []
    for start, end in itertools.pairwise((-1, *breaks, len(visible) - 1)):
        found += [start + index for index in speller.parted(visible[start + 1 : end + 1], [*may_part, False][start + 1 : end + 1])]
    return found


def word_of(read: Sequence[Character], polygon: Quad, speller: Speller, before: str = "", after: str = "") -> Word:
    """Characters that were read as one word, mended; `polygon`: where they lie. `before`, `after`: as for `told_by_context`."""
    told = told_by_context(read, speller, before, after)
    mended = told if in_postcode("".join(character.text for character in told), before, after) else speller.mended(told)
    text, read_text = ("".join(character.text for character in characters) for characters in (mended, read))
    return Word(
        text=text,
        confidence=fmean(character.confidence for character in mended),
        polygon=polygon,
        read_text=read_text if read_text != text else "",
    )


def _spaced_after(characters: Sequence[Character]) -> list[bool]:
    """For each visible character whether a space was read after it."""
    spaced: list[bool] = []
    for character in characters:
        if not character.text.isspace():
            spaced.append(False)
        elif spaced:
            spaced[-1] = True
    return spaced


def _usual_gap(widths: Sequence[int], height: int) -> float:
    """The width that gaps within words of a line have, in pixels, by those that no space was read in."""
    usual = max(float(median(widths or [0])), 1.0)
    return usual if len(widths) >= _TELLING_GAPS else min(usual, _MOST_USUAL * height)


def _is_missed_space(gap: _Gap, usual: float, height: int, before: Character, after: Character) -> bool:
    """`usual`: the width that gaps within words of this line have, in pixels."""
    if _is_spaceless(before.text) or _is_spaceless(after.text):
        return False
    by_usual, by_height = gap.width / usual, gap.width / height
    if before.space_after >= _SPACE_LIKELY and by_usual >= _SPACE_BY_USUAL_LIKELY:
        if before.text.isdecimal() and after.text.isdecimal():
            return by_height >= _SPACE_BETWEEN_DIGITS
        return not (before.text in ",." and after.text.isdecimal())
    if before.text in _OPENING or after.text in _CLOSING or (gap.lacks_ink and before.space_after < _SPACE_THOUGHT_OF):
        return False
    if by_height >= _SPACE_BY_HEIGHT and by_usual >= _SPACE_BY_USUAL:
        return True
    return before.text.isalnum() and after.text.isalnum() and _is_wide(by_usual, by_height, usual / height, before, after)


def _is_wide(by_usual: float, by_height: float, usual_by_height: float, before: Character, after: Character) -> bool:
    """Whether a gap between letters or digits is wide for such a line, or for what stands beside it."""
    if by_height >= _WIDE and by_usual >= _WIDE_BY_USUAL:
        return True
    if usual_by_height >= _SET_APART and by_usual >= _APART_BY_USUAL:
        return True
    if before.text.isdecimal() != after.text.isdecimal():
        return by_height >= _BESIDE_DIGIT and by_usual >= _BESIDE_DIGIT_BY_USUAL
    is_capital = before.text.islower() and after.text.isupper()
    return is_capital and before.space_after >= _BEFORE_CAPITAL_LIKELY and by_usual >= _BEFORE_CAPITAL_BY_USUAL


def _is_spaceless(letter: str) -> bool:
    return not letter.isascii() and unicodedata.name(letter, "").startswith(_SPACELESS)


def _gaps(visible: Sequence[Character], columns: NDArray[np.bool_]) -> list[_Gap]:
    """Between each two characters. `columns`: which of the line's have ink."""
    runs, inked = Gaps(columns), np.flatnonzero(columns)
    # The recogniser may tell a letter beside its ink: the margin there is no gap.
    first, last = (int(inked[0]), int(inked[-1]) + 1) if len(inked) else (0, len(columns))
    first, last = 0 if visible[0].text in _OF_RULES else first, len(columns) if visible[-1].text in _OF_RULES else last
    return [_gap_between(runs, before, after, columns, within=(first, last)) for before, after in itertools.pairwise(visible)]


def _gap_between(runs: Gaps, before: Character, after: Character, columns: NDArray[np.bool_], *, within: tuple[int, int]) -> _Gap:
    """`within`: the first x of the line's ink, and the one after it."""
    if before.text == after.text and before.text in _OF_RULES:
        return _Gap(start=int(after.x), end=int(after.x))
    start, end = runs.widest(int(max(before.x, within[0])), math.ceil(min(after.x, within[1])))
    lacks_ink = (start <= before.x and _is_pale(before, columns)) or (end >= after.x and _is_pale(after, columns))
    return _Gap(start=start, end=end, lacks_ink=lacks_ink)


def _is_pale(character: Character, columns: NDArray[np.bool_]) -> bool:
    """Whether a letter or digit has no ink where it was read, nor so near that it was told beside it. Rules and points may have none."""
    around = columns[max(0, int(character.x) - _BESIDE_INK) : int(character.x) + _BESIDE_INK + 1]
    return character.text.isalnum() and not around.any()


def _first_ink(columns: NDArray[np.bool_], character_x: float) -> float:
    """Where the ink begins that leads to a character, coming from the left edge."""
    found = np.flatnonzero(columns[: max(1, int(character_x))])
    return float(found[0]) if len(found) else 0.0
