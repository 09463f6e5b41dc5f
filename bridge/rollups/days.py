"""Days as laboratories print them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime

_BETWEEN = re.compile(r"[-/.,\s]+|(?<=\d)T(?=\d)")
# 5th March.
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b", re.IGNORECASE)
# Sept 5: Python knows Sep and September.
_SEPT = re.compile(r"\bsept\b", re.IGNORECASE)
_NAMED = ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d %b %y", "%d %B %y", "%b %d %y", "%B %d %y")
_DAY_FIRST = ("%d %m %Y", "%d %m %y")
_MONTH_FIRST = ("%m %d %Y", "%m %d %y")


def month_comes_first(printed: Iterable[str | None]) -> bool:
    """Whether a document's dates have the month before the day: one of them can be read so alone.

    Where nothing tells, the day comes first, as it does where the platform is used; and so it does where they contradict each other.
    """
    both = [(_read(one, _DAY_FIRST), _read(one, _MONTH_FIRST)) for one in map(_parts, printed)]
    by_day, by_month = ([one[order] is not None and one[1 - order] is None for one in both] for order in (0, 1))
    return any(by_month) and not any(by_day)


def iso_day(printed: str | None, *, month_first: bool = False) -> str | None:
    """The day as 2026-03-05, whatever follows it; None where nothing can be read. `month_first`: where both could be."""
    text = (printed or "").strip()
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        numbers = (*_MONTH_FIRST, *_DAY_FIRST) if month_first else (*_DAY_FIRST, *_MONTH_FIRST)
        found = _read(_parts(text), ("%Y %m %d", *numbers, *_NAMED))
    return found.isoformat() if found else None


def _parts(printed: str | None) -> str:
    text = _SEPT.sub("Sep", _ORDINAL.sub("", (printed or "").strip()))
    return " ".join(_BETWEEN.split(text)[:3])


def _read(parts: str, orders: Iterable[str]) -> date | None:
    for order in orders:
        try:
            return datetime.strptime(parts, order).date()
        except ValueError:
            continue
    return None
