"""The fields of Indonesian identity cards (KTP) and tax cards (NPWP), out of their lines, under the platform's names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from bridge.systems.cards.parsing.birth import date_in, place_in
from bridge.systems.cards.parsing.digits import NPWP_DIGITS, Number, grouped_npwp, is_number, numbers_in
from bridge.systems.cards.parsing.kinds import other_document
from bridge.systems.cards.parsing.labels import label_of
from bridge.systems.cards.parsing.layout import Layout, Value, layout_of
from bridge.systems.cards.parsing.lines import Polygon, ReadLine, lines_of_text
from bridge.systems.cards.parsing.nik import nik_facts
from bridge.systems.cards.parsing.rows import Passage, place_of, rows_of
from bridge.systems.cards.parsing.spelling import distance, most_wrong, pieces_of, skeleton, word_told
from bridge.systems.cards.parsing.vocabulary import WORDS

_NIK_DIGITS = 16
# Before a number that has no label that we know there may be so many letters: `NO`, or what is left of `NIK`.
_MOST_LETTERS_BEFORE = 4
_NUMBER_WORDS = frozenset({skeleton(word) for word in ("NO", "NOMOR", "NOMER", "ID", "IDENTITAS")})
# Labels that a tax card does not have.
_OF_A_KTP = ("gender", "religion", "maritalStatus")
_GENDERS = {"LAKI": "LAKI-LAKI", "PRIA": "LAKI-LAKI", "WANITA": "PEREMPUAN"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A value of a card."""

    value: str
    # Of the words that it was read from, 0 to 1, by their length; None where the engine tells none.
    confidence: float | None = None
    # From 1, and the corners on it; none where the engine tells no places.
    page: int = 1
    polygon: Polygon = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """What stands on a card."""

    # Under the platform's names, only what was found, in its order.
    fields: Mapping[str, Field]
    # As printed in the head of a KTP; empty when it is not read.
    province: str = ""
    # What the picture shows instead of a card; empty where nothing tells that it is something else.
    other: str = ""
    # Fields of which it shows more than one: two cards, or a letter and a card.
    several: tuple[str, ...] = ()
    # Fields that stand at an edge of it, and may go on beyond.
    cut: tuple[str, ...] = ()

    @property
    def values(self) -> Mapping[str, str]:
        """The fields without their places."""
        return {name: found.value for name, found in self.fields.items()}


def card_of(kind: str, lines: Sequence[ReadLine]) -> Card | None:
    """What stands on a KTP or an NPWP; None for another kind of document."""
    reader = {"KTP": _ktp, "NPWP": _npwp}.get(kind.upper())
    if reader is None:
        return None
    rows = rows_of(lines)
    card = reader(layout_of(rows))
    return replace(card, other=other_document(kind.upper(), rows, has_number="npwpNumber" in card.fields))


def card_fields(kind: str, text: str) -> Mapping[str, str] | None:
    """The values that were found in a text, of a KTP or an NPWP; None for another kind of document."""
    card = card_of(kind, lines_of_text(text))
    return None if card is None else card.values


def _ktp(layout: Layout) -> Card:
    found = {
        "nik": _nik(layout),
        "name": _name(layout.of("name")),
        "birthPlace": _birth_place(layout),
        "birthDate": _birth_date(layout),
        "address": _address(layout),
        "gender": _one_of("gender", layout),
        "religion": _one_of("religion", layout),
        "maritalStatus": _one_of("maritalStatus", layout),
    }
    province = next((value.rows[0].text for value in layout.of("province")), "")
    several = [name for name, read in (("nik", _niks(layout)), ("name", _names(layout.of("name")))) if _differ(read)]
    return Card(fields={name: one for name, one in found.items() if one}, province=province, several=tuple(several))


def _npwp(layout: Layout) -> Card:
    # Most tax cards have the name below the number, without a label; where a KTP lies beside one, the label is its own.
    labelled, below = _name(layout.of("name")), _name(layout.of("holder"))
    is_beside_ktp = any(map(layout.of, _OF_A_KTP))
    fields = {"npwpNumber": _tax_number(layout), "name": (below or labelled) if is_beside_ktp else (labelled or below)}
    names = _names([*layout.of("name"), *(layout.of("holder") if is_beside_ktp else ())])
    several = [name for name, read in (("npwpNumber", _tax_numbers(layout)), ("name", names)) if _differ(read)]
    # Where none is found below the number, the only name is the KTP's, which may be another person's.
    if is_beside_ktp and labelled and not below:
        several.append("name")
    return Card(fields={name: one for name, one in fields.items() if one}, several=tuple(several))


def _field(value: str, *passages: Passage) -> Field:
    confidence, polygon = place_of(passages)
    return Field(value=value, confidence=confidence, page=passages[0].row.page, polygon=polygon)


def _nik(layout: Layout) -> Field | None:
    """Behind its label, else what stands on the card without one; rather one that a person may have."""
    for found in (_behind(layout.of("nik"), _NIK_DIGITS), _unlabelled(layout, _NIK_DIGITS)):
        numbers = list(found)
        if numbers:
            number, passage = next((one for one in numbers if _is_sound(one[0].digits)), numbers[0])
            return _field(number.digits, passage)
    return None


def _tax_number(layout: Layout) -> Field | None:
    """Of 15 digits wherever it stands, else of 16 behind its label; rather one that has no other digits beside it."""
    short, long = (list(_behind(layout.of("npwp"), count)) for count in (NPWP_DIGITS, _NIK_DIGITS))
    alone = [[one for one in numbers if one[0].alone] for numbers in (short, long)]
    number, passage = next(iter((*alone[0], *_unlabelled(layout, NPWP_DIGITS), *alone[1], *short, *long)), (None, None))
    if number is None or passage is None:
        return None
    return _field(grouped_npwp(number.digits) if len(number.digits) == NPWP_DIGITS else number.digits, passage)


def _niks(layout: Layout) -> list[str]:
    """All that stand behind a label, and those without one that a person may have."""
    loose = (number.digits for number, _ in _unlabelled(layout, _NIK_DIGITS))
    return [*(number.digits for number, _ in _alone(layout.of("nik"), _NIK_DIGITS)), *filter(_is_sound, loose)]


def _tax_numbers(layout: Layout) -> list[str]:
    """All of 15 digits: one of 16 is the same holder's."""
    return [number.digits for number, _ in (*_alone(layout.of("npwp"), NPWP_DIGITS), *_unlabelled(layout, NPWP_DIGITS))]


def _alone(values: Sequence[Value], count: int) -> Iterator[tuple[Number, Passage]]:
    """Of each value its surest number, where it has no other digits beside it."""
    return (found for value in values for found in islice(_behind([value], count), 1) if found[0].alone)


def _names(values: Sequence[Value]) -> list[str]:
    return [read.value for value in values if (read := _name([value]))]


def _differ(read: Sequence[str]) -> bool:
    """Whether values are more than one, though letters or digits of it are misread."""
    first, *others = [skeleton(value) for value in read] or [""]
    return any(distance(first, other) > most_wrong(len(first)) for other in others)


def _behind(values: Sequence[Value], count: int) -> Iterator[tuple[Number, Passage]]:
    """Numbers of so many digits behind a label."""
    for value in values:
        for number in numbers_in(value.whole.text, count):
            yield number, value.whole.part(number.start, number.end)


def _unlabelled(layout: Layout, count: int) -> Iterator[tuple[Number, Passage]]:
    """Numbers of so many digits that stand behind no label, or behind what is left of one."""
    for passage in layout.loose:
        for number in numbers_in(passage.text, count):
            # Cards of banks and telephones have their numbers in groups too.
            is_like = " " not in passage.text[number.start : number.end] or count != _NIK_DIGITS or _is_sound(number.digits)
            if number.alone and is_like and _may_go_before(passage.text[: number.start]):
                yield number, passage.part(number.start, number.end)


def _may_go_before(text: str) -> bool:
    """Whether what stands before a number leaves open what it is: `NO`, what is left of `NIK`, or that word among others."""
    words = [skeleton(piece.text) for piece in pieces_of(text)]
    if any(map(label_of, words)) or label_of(text):
        return "nik" in map(label_of, words) or label_of(text) in {"nik", "npwp"}
    return len(skeleton(text)) <= _MOST_LETTERS_BEFORE or set(words) <= _NUMBER_WORDS


def _is_sound(nik: str) -> bool:
    facts = nik_facts(nik)
    return bool(facts.province) and facts.birth is not None


def _name(values: Sequence[Value]) -> Field | None:
    for value in values:
        rows = [_without_numbers(row) for row in value.rows]
        text = _joined(rows)
        if text:
            return _field(text, *rows)
    return None


def _address(layout: Layout) -> Field | None:
    value = next(iter(layout.of("address")), None)
    return _field(_joined(value.rows), *value.rows) if value else None


def _birth_place(layout: Layout) -> Field | None:
    for value in (*layout.of("birth"), *layout.of("birthPlace")):
        date = date_in(value.rows[0].text)
        place, start, end = place_in(value.rows[0].text[: date.start] if date else value.rows[0].text)
        if place:
            return _field(place, value.rows[0].part(start, end))
    return None


def _birth_date(layout: Layout) -> Field | None:
    for value in (*layout.of("birth"), *layout.of("birthDate")):
        # Beyond a wide gap only where there is none before.
        for passage in (*value.rows, value.whole):
            if found := date_in(passage.text):
                return _field(found.value, passage.part(found.start, found.end))
    return None


def _one_of(name: str, layout: Layout) -> Field | None:
    """One of the words that a field may have."""
    for value in layout.of(name):
        if told := word_told(value.rows[0].text, WORDS[name]):
            word, start, end = told
            return _field(_GENDERS.get(word, word) if name == "gender" else word, value.rows[0].part(start, end))
    return None


def _without_numbers(passage: Passage) -> Passage:
    """A name up to the first number: digits are no part of it."""
    number = next((word for word in re.finditer(r"\S+", passage.text) if is_number(word.group())), None)
    return passage.part(0, number.start()).trimmed() if number else passage


def _joined(rows: Sequence[Passage]) -> str:
    """The text of rows; a comma at the end of one is of the text, not around it."""
    texts = [row.text + ("," if row.row.text[row.end :].startswith(",") else "") for row in rows[:-1]]
    return " ".join(" ".join((*texts, *(row.text for row in rows[-1:]))).split())
