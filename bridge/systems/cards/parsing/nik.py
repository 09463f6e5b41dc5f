"""What the number of an identity card (NIK) says of its holder: six digits of the place, the birth date, a running number.

The place is that of the first registration, and stays when people move. Of women 40 is added to the day (Peraturan Pemerintah 37/2007,
article 37).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from bridge.systems.cards.parsing.provinces import PROVINCES

_WOMEN = 40


@dataclass(frozen=True, kw_only=True)
class NikFacts:
    """What a number of 16 digits says."""

    # Its code; empty for one that no province has.
    province: str
    # Day and month, and the last two digits of the year; None where there is no such day in either century.
    birth: tuple[int, int, int] | None
    is_woman: bool


def nik_facts(nik: str) -> NikFacts:
    """Read a number of 16 digits."""
    day, month, year = int(nik[6:8]), int(nik[8:10]), int(nik[10:12])
    is_woman = day > _WOMEN
    day -= _WOMEN if is_woman else 0
    exists = any(_exists(century + year, month, day) for century in (1900, 2000))
    # Districts are counted from 01.
    known = nik[:2] if nik[:2] in PROVINCES and nik[2:4] != "00" and nik[4:6] != "00" else ""
    return NikFacts(province=known, birth=(day, month, year) if exists else None, is_woman=is_woman)


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
