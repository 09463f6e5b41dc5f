"""Numbers on cards: what was taken for letters in them is mended, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

# Of a tax number, but for those of 16 digits that are a person's NIK, or one of 15 behind a nought.
NPWP_DIGITS = 15
# What digits are often taken for, and as what.
_TAKEN_FOR = "OoQDUIil|!LZz?SsBbGgqAT"
_MEANT = "00000111111227558669947"
_LOOKALIKES = str.maketrans(_TAKEN_FOR, _MEANT)
# A digit, or what one may have been taken for.
DIGIT_LIKE = rf"[0-9{re.escape(_TAKEN_FOR)}]"
# Marks within a number, as printed or misread.
_MARKS = r"[.,_'·-]"
_BETWEEN = re.compile(rf"(?:\s|{_MARKS}){{1,5}}")
# A group of a number: digits, or a word of what is like digits, with one among it or only what noughts are taken for.
_DIGITS = re.compile(r"\d+")
_LIKE_DIGITS = re.compile(rf"(?<![^\W_])(?:(?={DIGIT_LIKE}*\d){DIGIT_LIKE}+|[OoQD0]{{2,}})(?![^\W_])")


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number that was read."""

    # Mended, without marks.
    digits: str
    # Where it stands in the text.
    start: int
    end: int
    # Whether the text has no other digits beside it.
    alone: bool = True


def mended(text: str) -> str:
    """A number with its digits."""
    return text.translate(_LOOKALIKES)


def numbers_in(text: str, count: int) -> Iterator[Number]:
    """Numbers of exactly so many digits, the surest first.

    First those that are read as digits, then those that are digits for the greater part, then those whose digits stand in groups with
    spaces between. What touches a number is no part of it where the number is whole without.
    """
    yield from _whole(text, count)
    yield from _misread(text, count)
    yield from _grouped(text, count, _DIGITS)
    yield from _grouped(text, count, _LIKE_DIGITS)


def is_number(text: str) -> bool:
    """Whether a text is a number, or meant as one: at least three digits, and hardly any letter."""
    digits, letters = sum(map(str.isdigit, text)), sum(map(str.isalpha, text))
    return digits >= 3 and digits > 2 * letters


def grouped_npwp(digits: str) -> str:
    """A tax number of 15 digits as the platform has it: NN.NNN.NNN.N-NNN.NNN."""
    return f"{digits[:2]}.{digits[2:5]}.{digits[5:8]}.{digits[8]}-{digits[9:12]}.{digits[12:]}"


def _whole(text: str, count: int) -> Iterator[Number]:
    within = rf"{_MARKS}{{0,2}}"
    for found in re.finditer(rf"(?<!\d)(?<!\d{_MARKS})\d(?:{within}\d){{{count - 1}}}(?!{within}\d)", text):
        yield Number(digits=re.sub(r"\D", "", found.group()), start=found.start(), end=found.end())


def _misread(text: str, count: int) -> Iterator[Number]:
    for found in re.finditer(rf"{DIGIT_LIKE}(?:{_MARKS}{{0,2}}{DIGIT_LIKE}){{{count - 1},}}", text):
        places = [place for place in range(*found.span()) if re.match(DIGIT_LIKE, text[place])]
        digits = [number for number, place in enumerate(places) if text[place].isdigit()]
        if not digits:
            continue
        # All that are digits for sure are of it; letters may touch it on either side.
        for first in range(min(digits[0], len(places) - count), max(-1, digits[-1] - count), -1):
            kept = places[first : first + count]
            read = "".join(text[place] for place in kept)
            if _mostly_digits(read):
                yield Number(digits=mended(read), start=kept[0], end=kept[-1] + 1)


def _grouped(text: str, count: int, group: re.Pattern[str]) -> Iterator[Number]:
    for run in _runs(text, group):
        sizes = [len(found.group()) for found in run]
        for first in range(len(run) - 1):
            sums = list(accumulate(sizes[first : first + count]))
            if count not in sums:
                continue
            last = first + sums.index(count)
            read = "".join(found.group() for found in run[first : last + 1])
            if last > first and _mostly_digits(read):
                yield Number(digits=mended(read), start=run[first].start(), end=run[last].end(), alone=sum(sizes) == count)


def _runs(text: str, group: re.Pattern[str]) -> Iterator[Sequence[re.Match[str]]]:
    """Groups of digits with nothing but marks and spaces between."""
    run: list[re.Match[str]] = []
    for found in group.finditer(text):
        if run and not _BETWEEN.fullmatch(text, run[-1].end(), found.start()):
            yield run
            run = []
        run.append(found)
    yield run


def _mostly_digits(read: str) -> bool:
    return sum(map(str.isdigit, read)) * 2 > len(read)
