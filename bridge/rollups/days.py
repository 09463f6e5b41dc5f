"""Days as laboratories print them."""

from __future__ import annotations

import re
from datetime import date, datetime

_BETWEEN = re.compile(r"[-/.,\s]+|(?<=\d)T(?=\d)")
# Where day and month could be either, the day comes first, as it does where the platform is used.
_ORDERS = ("%Y %m %d", "%d %m %Y", "%m %d %Y", "%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d %b %y")


def iso_day(printed: str | None) -> str | None:
    """The day as 2026-03-05, whatever follows it; None where nothing can be read."""
    text = (printed or "").strip()
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        parts = " ".join(_BETWEEN.split(text)[:3])
    for order in _ORDERS:
        try:
            return datetime.strptime(parts, order).date().isoformat()
        except ValueError:
            continue
    return None
