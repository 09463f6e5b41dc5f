"""The provinces, by their codes of the Ministry of Home Affairs, with those of Papua since 2022, and what cards call them."""

from __future__ import annotations

from itertools import islice

from bridge.systems.cards.parsing.spelling import distance, most_wrong, pieces_of, skeleton

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
_ALIASES = {
    "11": ("NANGGROE ACEH DARUSSALAM", "NAD", "DI ACEH", "DAERAH ISTIMEWA ACEH"),
    "12": ("SUMUT", "SUMATRA UTARA"),
    "13": ("SUMBAR", "SUMATRA BARAT"),
    "16": ("SUMSEL", "SUMATRA SELATAN"),
    "19": ("BANGKA BELITUNG", "BABEL", "KEP BANGKA BELITUNG"),
    "21": ("KEPRI", "KEP RIAU"),
    "31": (
        *("DKI", "DKJ", "JAKARTA", "DK JAKARTA", "DAERAH KHUSUS JAKARTA"),
        *("DAERAH KHUSUS IBUKOTA JAKARTA", "DAERAH KHUSUS IBU KOTA JAKARTA"),
    ),
    "32": ("JABAR",),
    "33": ("JATENG",),
    "34": ("DIY", "YOGYAKARTA", "DI YOGYAKARTA", "DAERAH ISTIMEWA JOGJAKARTA", "JOGJAKARTA", "DI JOGJAKARTA", "JOGJA"),
    "35": ("JATIM",),
    "52": ("NTB",),
    "53": ("NTT",),
    "61": ("KALBAR",),
    "62": ("KALTENG",),
    "63": ("KALSEL",),
    "64": ("KALTIM",),
    "65": ("KALTARA",),
    "71": ("SULUT",),
    "72": ("SULTENG",),
    "73": ("SULSEL",),
    "74": ("SULTRA",),
    "76": ("SULBAR",),
    "82": ("MALUT",),
}
_CODES = {skeleton(name): code for code, name in PROVINCES.items()} | {
    skeleton(name): code for code, names in _ALIASES.items() for name in names
}
# Provinces that were one when numbers had been given out: who was born in the old one has its code, and has not moved.
_ONCE_ONE = ({"91", "93", "94", "95"}, {"92", "96"}, {"64", "65"})
_LABEL = skeleton("PROVINSI")
# With letters set wide; and of how many words a head is: the label, and `DAERAH KHUSUS IBU KOTA JAKARTA`.
_MOST_LABEL, _MOST_WORDS = 20, 6


def province_code(text: str) -> str:
    """The code of the province that a text names, in full or for short; empty where it names none."""
    read = skeleton(text)
    if read in _CODES:
        return _CODES[read]
    near = {name: distance(read, name) for name in _CODES if abs(len(name) - len(read)) <= 2 and len(name) > 5}
    best = min(near.values(), default=len(read))
    codes = {_CODES[name] for name, wrong in near.items() if wrong == best}
    return codes.pop() if best <= min(2, most_wrong(len(read))) and len(codes) == 1 else ""


def headed_province(text: str) -> tuple[int, int] | None:
    """Where the name of the province stands that the head of a card has; None where the text is no such head."""
    pieces = list(islice(pieces_of(text), _MOST_WORDS))
    if not pieces:
        return None
    # `PROVINSIBALI` too; a name alone is none of a head.
    glued = next((place for place in range(min(len(text), _MOST_LABEL), 5, -1) if skeleton(text[:place]) == _LABEL), 0)
    start = glued or (pieces[0].end if distance(skeleton(pieces[0].text), _LABEL) <= 1 else 0)
    ends = [piece.end for piece in pieces if piece.end > start] if start else []
    start += len(text[start:]) - len(text[start:].lstrip(" :.-"))
    if ends and province_code(text[start : ends[-1]]):
        return start, ends[-1]
    # What follows on the row is no part of it.
    return next(((start, end) for end in reversed(ends) if skeleton(text[start:end]) in _CODES), None)


def same_province(one: str, other: str) -> bool:
    """Whether two codes are of one province, or of two that were one."""
    return one == other or any({one, other} <= once for once in _ONCE_ONE)
