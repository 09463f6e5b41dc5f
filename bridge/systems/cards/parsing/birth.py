"""Dates on cards, and the place that stands before a date of birth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from bridge.systems.cards.parsing.digits import DIGIT_LIKE, mended

_MONTHS = ("JAN", "FEB", "MAR", "APR", "ME[IY]", "JUN", "JUL", "AGU", "SEP", "O[KC]T", "NO[VP]", "DES")
# Day, month and year, with something between or all eight digits.
_APART = r"({0}{{1,2}})(?:\s*[-/.,_:]\s*|\s+)({0}{{1,2}})(?:\s*[-/.,_:]\s*|\s+)({0}{{4}})"
_CLOSE = r"({0}{{2}})[-/.,_: ]?({0}{{2}})[-/.,_: ]?({0}{{4}})"
_READ = tuple(re.compile(rf"(?<!\d){form.format('[0-9]')}(?!\d)") for form in (_APART, _CLOSE))
_MISREAD = tuple(re.compile(rf"(?<![A-Za-z0-9]){form.format(DIGIT_LIKE)}(?![A-Za-z0-9])") for form in (_APART, _CLOSE))
_NAMED = re.compile(rf"(?<!\d)(\d{{1,2}})[-/. ]*({'|'.join(_MONTHS)})[A-Z]*[-/. ]*(\d{{4}})(?!\d)", re.IGNORECASE)

# Words up to the first number; a digit within a word is a misread letter.
_PLACE = re.compile(r"[^\w(]*((?:(?!\d\d|(?<!\w)\d).)*)")


@dataclass(frozen=True, kw_only=True)
class ReadDate:
    """A date in a text."""

    # As cards print it: DD-MM-YYYY.
    value: str
    # Where it stands.
    start: int
    end: int


def date_in(text: str) -> ReadDate | None:
    """The first date of a text: one that exists, else one that is read as such; None where there is none."""
    found = list(_dates(text))
    return next((one for one in found if _exists(one.value)), found[0] if found else None)


def place_in(text: str) -> tuple[str, int, int]:
    """The place with which a text begins, and where it stands; empty where there is none. Numbers are no part of it."""
    found = _PLACE.match(text)
    place = found.group(1).rstrip(" ,.:;-/_|~(") if found else ""
    start = found.start(1) if found else 0
    return " ".join(place.split()), start, start + len(place)


def _dates(text: str) -> Iterator[ReadDate]:
    for form in _READ:
        yield from (_date(found, found.group(2)) for found in form.finditer(text))
    for found in _NAMED.finditer(text):
        yield _date(found, str(1 + next(number for number, name in enumerate(_MONTHS) if re.match(name, found.group(2), re.IGNORECASE))))
    for form in _MISREAD:
        # Words that look like digits throughout are none.
        yield from (
            _date(found, found.group(2))
            for found in form.finditer(text)
            if sum(map(str.isdigit, found.group())) * 2 >= sum(map(str.isalnum, found.group()))
        )


def _date(found: re.Match[str], month: str) -> ReadDate:
    day, year = mended(found.group(1)), mended(found.group(3))
    return ReadDate(value=f"{int(day):02d}-{int(mended(month)):02d}-{year}", start=found.start(), end=found.end())


def _exists(value: str) -> bool:
    day, month, year = map(int, value.split("-"))
    try:
        return 1900 <= date(year, month, day).year < 2100
    except ValueError:
        return False
