"""Days as laboratories print them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import takewhile

_BETWEEN = re.compile(r"[-/.,\s]+|(?<=\d)T(?=\d)")
# 5th March.
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b", re.IGNORECASE)
# Sept 5: Python knows Sep and September.
_SEPT = re.compile(r"\bsept\b", re.IGNORECASE)
# Of these there is one reading.
_PLAIN = ("%Y %m %d", "%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d %b %y", "%d %B %y", "%b %d %y", "%B %d %y")
# Of three numbers, the last or the first the year. The first of these is taken where nothing tells: it is so where the platform is used.
_YEAR_FIRST = ("%y %m %d",)
_ORDERS = (("%d %m %Y", "%d %m %y"), ("%m %d %Y", "%m %d %y"), _YEAR_FIRST)
# No report is of a day to come, but for clocks and time zones; and one so old is not likely where another reading is younger.
_AHEAD = timedelta(days=1)
_OLD = timedelta(days=3653)


class PrintedDays:
    """The days of one document. Its dates have one order, where there is one in which all can be read.

    Of several orders those count by which no day lies ahead, of those the ones by which none is older than ten years, and of those the
    day comes first, then the month. Where its dates contradict each other each is read by itself; so it is where all can be read with a
    year of two digits first alone, and one is older then.
    """

    def __init__(self, printed: Iterable[str | None], *, known_on: date) -> None:
        """`known_on`: when the document was there."""
        self._known_on = known_on
        self._parts = {text: _parts(text) for text in printed if text and _iso(text) is None}
        self._orders = self._likely(self._parts.values())

    def iso(self, printed: str | None) -> str | None:
        """One of its days as 2026-03-05, whatever follows it; None where nothing can be read."""
        readings = self._readings(printed) if printed else []
        return readings[0] if readings else None

    @property
    def ambiguous(self) -> Mapping[str, Sequence[str]]:
        """Its dates that can be read in several ways, of which nothing tells the right one: all their days, first the one that is taken."""
        readings = {text: self._readings(text) for text in self._parts}
        return {text: days for text, days in readings.items() if len(days) > 1}

    def _readings(self, printed: str) -> list[str]:
        if (iso := _iso(printed)) is not None:
            return [iso]
        parts = _parts(printed)
        named = _read(parts, _PLAIN)
        orders = self._orders or self._likely([parts])
        found = [named] if named else [_read(parts, order) for order in orders]
        return list(dict.fromkeys(day.isoformat() for day in found if day is not None))

    def _likely(self, every: Iterable[str]) -> Sequence[Sequence[str]]:
        """The orders in which all these may be meant; empty when there is none."""
        numbers = [parts for parts in every if _read(parts, _PLAIN) is None and any(_read(parts, order) for order in _ORDERS)]
        days = {order: [_read(parts, order) for parts in numbers] for order in _ORDERS}
        readable = {order: [day for day in found if day] for order, found in days.items() if None not in found}
        passed = {order: found for order, found in readable.items() if all(day <= self._known_on + _AHEAD for day in found)}
        if not passed:  # as where clocks differ; but nothing else speaks for a year of two digits that comes first
            passed = {order: found for order, found in readable.items() if order is not _YEAR_FIRST}
        young = [order for order, found in passed.items() if all(day >= self._known_on - _OLD for day in found)]
        if not young:
            return () if [*passed] == [_YEAR_FIRST] else tuple(passed)
        # Those that come before the first of them give way to it, but may be right.
        return *young, *takewhile(lambda order: order is not young[0], passed)


def _iso(printed: str) -> str | None:
    try:
        return date.fromisoformat(printed.strip()[:10]).isoformat()
    except ValueError:
        return None


def _parts(printed: str) -> str:
    text = _SEPT.sub("Sep", _ORDINAL.sub("", printed.strip()))
    return " ".join(_BETWEEN.split(text)[:3])


def _read(parts: str, orders: Iterable[str]) -> date | None:
    for order in orders:
        try:
            return datetime.strptime(parts, order).date()
        except ValueError:
            continue
    return None
