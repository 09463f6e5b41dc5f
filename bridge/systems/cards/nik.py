"""What the number of an identity card (NIK) says of its holder: six digits of the place, the birth date, a running number.

The place is that of the first registration, and stays when people move. Of women 40 is added to the day (Peraturan Pemerintah 37/2007,
article 37). Codes are those of the Ministry of Home Affairs, with the provinces of Papua since 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

_WOMEN = 40
PROVINCES = {
    "11": "ACEH",
    "12": "SUMATERA UTARA",
    "13": "SUMATERA BARAT",
    "14": "RIAU",
    "15": "JAMBI",
    "16": "SUMATERA SELATAN",
    "17": "BENGKULU",
    "18": "LAMPUNG",
    "19": "KEPULAUAN BANGKA BELITUNG",
    "21": "KEPULAUAN RIAU",
    "31": "DKI JAKARTA",
    "32": "JAWA BARAT",
    "33": "JAWA TENGAH",
    "34": "DAERAH ISTIMEWA YOGYAKARTA",
    "35": "JAWA TIMUR",
    "36": "BANTEN",
    "51": "BALI",
    "52": "NUSA TENGGARA BARAT",
    "53": "NUSA TENGGARA TIMUR",
    "61": "KALIMANTAN BARAT",
    "62": "KALIMANTAN TENGAH",
    "63": "KALIMANTAN SELATAN",
    "64": "KALIMANTAN TIMUR",
    "65": "KALIMANTAN UTARA",
    "71": "SULAWESI UTARA",
    "72": "SULAWESI TENGAH",
    "73": "SULAWESI SELATAN",
    "74": "SULAWESI TENGGARA",
    "75": "GORONTALO",
    "76": "SULAWESI BARAT",
    "81": "MALUKU",
    "82": "MALUKU UTARA",
    "91": "PAPUA",
    "92": "PAPUA BARAT",
    "93": "PAPUA SELATAN",
    "94": "PAPUA TENGAH",
    "95": "PAPUA PEGUNUNGAN",
    "96": "PAPUA BARAT DAYA",
}


@dataclass(frozen=True, kw_only=True)
class NikFacts:
    """What a number of 16 digits says."""

    # As the head of a card has it; empty for a code that no province has.
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
    known = PROVINCES.get(nik[:2], "") if nik[2:4] != "00" and nik[4:6] != "00" else ""
    return NikFacts(province=known, birth=(day, month, year) if exists else None, is_woman=is_woman)


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
