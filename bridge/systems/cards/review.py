"""Why a person is to look at a card: what contradicts itself, what was hardly readable, what is missing.

Thresholds of pictures, measured with the built-in models on rendered cards of 14 to 41 pixels of text height, in eight degrees of blur:
characters were read with 2 to 5 % of errors down to a sharpness of 0.024, with 6 to 7 % at 0.017, and with more than 46 % at 0.014. Of
pictures that were moved while they were taken, in any direction, 0.02 is about where fields begin to be lost.
A line of a KTP takes about 3 % of the area of its text; a burnt spot of 1 % hides a word. A spot on a card that is as
white as itself cannot be told from paper: fields that are not there tell it. Of cards that are read well none is missing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from bridge.inference.documents import PageQuality
from bridge.systems.cards.parsing.fields import Card
from bridge.systems.cards.parsing.nik import NikFacts, nik_facts
from bridge.systems.cards.parsing.provinces import province_code, same_province
from bridge.systems.cards.scoring import ENOUGH, Score

LEAST_SHARPNESS = 0.02
MOST_GLARE = 0.01
LEAST_TEXT_HEIGHT = 10.0
# Of the recogniser, in the fields that count for the score.
LEAST_CONFIDENCE = 0.8
_COUNTING = ("nik", "npwpNumber", "name")
# What stands on every KTP, and how much of it may go unread.
_ON_A_KTP = ("nik", "name", "birthPlace", "birthDate", "address", "gender", "religion", "maritalStatus")
_MOST_MISSING = 1
# What tells who someone is: none of these may.
_OF_A_PERSON = frozenset({"name", "birthPlace", "birthDate", "address", "gender"})
# The platform scores names of so many characters, and approves cards without one. Of people who are called `ANI` or `EKO` it is whole; what
# has fewer is the rest of a name.
_LEAST_NAME, _LEAST_WHOLE_NAME = 4, 3
# Cards are printed in capitals, without these marks: what has them was read over dirt, a finger or something written across. Titles may
# have small letters (`S.Kom`, `SPd`).
_NOT_PRINTED = re.compile(r"(?<![\w.])\w*[A-Z]{2}\w*[a-z]|(?<![\w.])\w*[a-z]\w*[A-Z]{2}|[\"?!*|{}\[\]<>~=+$%^\\]")
_IN_CAPITALS = ("name", "birthPlace", "address")
# Behind a name, without the stops between its letters: `SPd`, `AMd.Kep`.
_TITLE = re.compile(r"(?<=[ ,])[A-Z]{2}[a-z]{1,3}(?![A-Za-z])")
_OLDEST = 110


class Gate(StrEnum):
    """What sends a card to a person however it scores."""

    OFF = "off"
    # A picture that is blurred, in which light is reflected, or of which neither is known, and a card that was hardly readable.
    PICTURES = "pictures"
    # That, and a card that contradicts itself or whose text is small.
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a person is to look at a card. Tells nothing of its holder."""

    code: str
    message: str
    # The gate that it alone does not pass, and none wider; OFF for what explains a score that is too low, or is only worth knowing.
    stopped_by: Gate = Gate.ALL

    def stops(self, gate: Gate) -> bool:
        """Whether it sends the card to a person, whatever its score."""
        return self.stopped_by is not Gate.OFF and gate in {self.stopped_by, Gate.ALL}


def reasons_of(kind: str, card: Card, score: Score, qualities: Collection[PageQuality]) -> tuple[Reason, ...]:
    """All reasons, in the order in which a person would look: the picture, what was read, what does not fit together."""
    found = [*_picture(qualities), *_shown(card), *_confidence(card)]
    found += _identity(card) if kind.upper() == "KTP" else _tax(card)
    if score.points < ENOUGH:
        found.append(Reason(code="LOW_SCORE", message=f"the score is {score.points}; {ENOUGH} are needed", stopped_by=Gate.OFF))
    return tuple(found)


def _picture(qualities: Collection[PageQuality]) -> Iterator[Reason]:
    if not qualities:
        message = "nothing measured the picture: it may be blurred, or its fields hardly readable"
        yield Reason(code="NOT_MEASURED", message=message, stopped_by=Gate.PICTURES)
    pages = [quality for quality in qualities if quality.sharpness is not None]
    if any(quality.sharpness < LEAST_SHARPNESS for quality in pages if quality.sharpness is not None):
        yield Reason(code="BLURRED", message="the picture is blurred; take it again, held still and in focus", stopped_by=Gate.PICTURES)
    if any(quality.glare > MOST_GLARE for quality in pages):
        message = "light is reflected on the text; take the picture again at another angle"
        yield Reason(code="GLARE", message=message, stopped_by=Gate.PICTURES)
    if any(quality.text_height < LEAST_TEXT_HEIGHT for quality in pages):
        yield Reason(code="LOW_RESOLUTION", message="the text is too small; take the picture from nearer, or scan at a higher resolution")


def _shown(card: Card) -> Iterator[Reason]:
    """What the picture shows beside one whole card, or in its place."""
    if card.other:
        yield Reason(code="OTHER_DOCUMENT", message=f"the picture shows another kind of document: {card.other}", stopped_by=Gate.PICTURES)
    for name in card.several:
        message = f"the picture shows more than one {name}: they may be of several people"
        yield Reason(code="SEVERAL_CARDS", message=message, stopped_by=Gate.PICTURES)
    for name in card.cut:
        message = f"the field {name} stands at the edge of the picture, and may go on beyond it"
        yield Reason(code="CUT_OFF", message=message, stopped_by=Gate.PICTURES)


def _confidence(card: Card) -> Iterator[Reason]:
    for name, found in card.fields.items():
        is_doubtful = name in _COUNTING and found.confidence is not None and found.confidence < LEAST_CONFIDENCE
        printed = _TITLE.sub("", found.value) if name == "name" else found.value
        if is_doubtful or (name in _IN_CAPITALS and _NOT_PRINTED.search(printed)):
            yield Reason(code="LOW_CONFIDENCE", message=f"the field {name} was hardly readable", stopped_by=Gate.PICTURES)


def _identity(card: Card) -> Iterator[Reason]:
    nik = card.values.get("nik", "")
    if not nik:
        yield Reason(code="NIK_MISSING", message="no NIK of 16 digits was found", stopped_by=Gate.OFF)
    yield from _name(card)
    missing = [name for name in _ON_A_KTP if name not in card.values]
    if len(missing) > _MOST_MISSING or not _OF_A_PERSON.isdisjoint(missing):
        message = f"{len(missing)} of the {len(_ON_A_KTP)} fields of a KTP were not found: {', '.join(missing)}"
        yield Reason(code="FIELDS_MISSING", message=message, stopped_by=Gate.PICTURES)
    if nik:
        yield from _contradictions(card, nik_facts(nik))


def _contradictions(card: Card, facts: NikFacts) -> Iterator[Reason]:
    if not facts.province:
        yield Reason(code="NIK_REGION", message="the NIK begins with the code of no province and district")
    elif (printed := province_code(card.province)) and not same_province(printed, facts.province):
        yield Reason(
            code="NIK_PROVINCE", message="the NIK was given in another province than the card; people may have moved", stopped_by=Gate.OFF
        )
    if facts.birth is None:
        yield Reason(code="NIK_DATE", message="the NIK holds a date that does not exist")
    elif (born := _date(card.values.get("birthDate", ""))) and born != facts.birth:
        yield Reason(code="NIK_BIRTH_DATE", message="the birth date on the card is not the one in the NIK")
    if (year := int(card.values.get("birthDate", "0")[-4:])) and not 0 <= date.today().year - year <= _OLDEST:
        yield Reason(code="BIRTH_DATE", message="the birth date on the card is that of no one who lives")
    gender = card.values.get("gender", "")
    if gender in {"LAKI-LAKI", "PEREMPUAN"} and (gender == "PEREMPUAN") != facts.is_woman:
        yield Reason(code="NIK_GENDER", message="the gender on the card is not the one in the NIK")


def _name(card: Card) -> Iterator[Reason]:
    if (length := len(card.values.get("name", ""))) < _LEAST_NAME:
        message = f"no name of {_LEAST_NAME} characters or more was found"
        yield Reason(code="NAME_MISSING", message=message, stopped_by=Gate.PICTURES if length < _LEAST_WHOLE_NAME else Gate.OFF)


def _tax(card: Card) -> Iterator[Reason]:
    yield from _name(card)
    digits = re.sub(r"\D", "", card.values.get("npwpNumber", ""))
    if not digits:
        yield Reason(code="NPWP_MISSING", message="no tax number of 15 or 16 digits was found", stopped_by=Gate.OFF)
    elif len(digits) == 15 and not _luhn(digits[:9]):
        yield Reason(
            code="NPWP_CHECK_DIGIT", message="the check digit of the tax number, its ninth, does not fit the others", stopped_by=Gate.OFF
        )
    elif len(digits) == 16 and digits[0] != "0" and not nik_facts(digits).province:
        yield Reason(code="NPWP_NIK", message="the tax number of 16 digits is neither a NIK nor one of 15 digits with a 0 before it")


def _date(text: str) -> tuple[int, int, int] | None:
    found = re.fullmatch(r"(\d{2})-(\d{2})-\d{2}(\d{2})", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _luhn(digits: str) -> bool:
    values = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value // 10 + value % 10 for value in values) % 10 == 0
