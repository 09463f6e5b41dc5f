"""What may stand behind a label."""

from __future__ import annotations

import re
from enum import IntEnum

from bridge.systems.cards.parsing.birth import date_in
from bridge.systems.cards.parsing.digits import DIGIT_LIKE, is_number
from bridge.systems.cards.parsing.spelling import distance, skeleton, word_told
from bridge.systems.cards.parsing.vocabulary import COMPANIES, HEADINGS, STREETS, WORDS

_NUMBER = re.compile(rf"{DIGIT_LIKE}(?:[\s.,_-]{{0,3}}{DIGIT_LIKE}){{9,}}")
_NEIGHBOURHOOD = re.compile(r"\W*\d{1,3}\W*\d{1,3}\W*")
# `003/007` without its label; `143` alone is the number of a house.
_TWO_NUMBERS = re.compile(r"\W*(?:\d{1,3}\W+\d{1,3}|\d{6})\W*")
_HOUSE = re.compile(r"[A-Z]{1,2}[ ./-]?\d{1,3}")
# Of names that are printed in capitals, what may have small letters: `Drs. ANDI, S.Kom`, `SITI, SPd`, `AHMAD bin ALI`.
_TITLES = re.compile(
    r"\b(?:Drs?|Dra|Hj|Ir|dr|[Bb]in(?:ti)?|als)\b\.?|\b(?:[A-Z][a-z]{0,2}\.)+[A-Z][A-Za-z]{0,3}\b|"
    r"(?<=[ ,])[A-Z]{2}[a-z]{1,3}\b(?:\.[A-Z][a-z]{0,3}\b)?"
)
_FOR_LIFE = skeleton("SEUMUR HIDUP")


class Fit(IntEnum):
    """How well a text fits behind a label."""

    NOT = 0
    # As any words would.
    MAYBE = 1
    # Its kind of value, by which even a misread label is told.
    SURELY = 2


def fit(name: str, text: str) -> Fit:
    """How well a text fits behind the label of that name."""
    if name in WORDS:
        told = word_told(text, WORDS[name])
        # A single letter is easily something else.
        return Fit.NOT if told is None else Fit.SURELY if len(told[0]) > 2 else Fit.MAYBE
    if name in {"nik", "npwp"}:
        found = _NUMBER.search(text)
        return Fit.SURELY if found and is_number(found.group()) else Fit.NOT
    if name == "rt":
        return Fit.SURELY if _NEIGHBOURHOOD.fullmatch(text) else Fit.NOT
    date = date_in(text)
    if name == "validity" and distance(skeleton(text)[: len(_FOR_LIFE)], _FOR_LIFE) <= 3:
        return Fit.SURELY
    if name in {"birth", "birthDate", "validity"} and date:
        # Cards have more dates than one; only the first stands behind a place.
        return Fit.SURELY if name == "birth" and _has_words(text) else Fit.MAYBE
    if name == "address" and _HOUSE.fullmatch(text):
        return Fit.MAYBE
    if name in {"name", "birth", "birthPlace", "address"}:
        return Fit.MAYBE if _has_words(text) else Fit.NOT
    return Fit.NOT if name in {"birthDate", "validity"} else Fit.MAYBE


def goes_on(name: str, before: str, text: str, *, placed: bool) -> bool:
    """Whether a row without a label may be the second of a name, an address or a birth. `placed`: it stands where that would."""
    if name == "birth":
        return date_in(before) is None and date_in(text) is not None
    if before.isupper() and any(map(str.islower, text)):
        return False
    if name == "name":
        return is_name(text)
    # Without a place, a mark or two are more often dirt, but for `C5`.
    is_some = placed or sum(map(str.isalnum, text)) >= 3 or bool(_HOUSE.fullmatch(text))
    return name == "address" and is_some and not is_of_another_field(text)


def is_name(text: str) -> bool:
    """Whether a text may be the name of a person: hardly a digit, no address, and nothing that another field has."""
    is_words = sum(map(str.isalpha, text)) >= 3 and not re.search(r"[:;/]|\d.*\d", text)
    return is_words and not re.match(STREETS, text, re.IGNORECASE) and not is_of_another_field(text)


def is_holder(text: str) -> bool:
    """Whether what stands behind or below the number of a tax card, and has no label, is its holder's name."""
    return is_name(text) and _TITLES.sub("", text).isupper() and (re.match(COMPANIES, text) is not None or not re.search(HEADINGS, text))


def is_of_another_field(text: str) -> bool:
    """Whether a text is a value that names and addresses are not: a word of a closed list, a number, a date."""
    told = (word_told(text, WORDS[name]) for name in ("gender", "religion", "maritalStatus"))
    whole = any(found and found[2] == len(text) for found in told)
    # `IDA BAGUS GUSTI` has no letter that digits are not taken for.
    is_long = _NUMBER.fullmatch(text) is not None and any(map(str.isdigit, text))
    return whole or is_long or date_in(text) is not None or _TWO_NUMBERS.fullmatch(text) is not None


def _has_words(text: str) -> bool:
    """Whether there are words beside a date; a number is none."""
    date = date_in(text)
    beside = text[: date.start] + text[date.end :] if date else text
    return sum(map(str.isalpha, beside)) >= 2 and not is_number(beside)
