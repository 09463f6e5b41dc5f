"""The fields of Indonesian identity cards (KTP) and tax cards (NPWP), out of their lines, under the platform's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.systems.cards.digits import DIGIT_LIKE, digits_of, grouped_npwp, mended, npwp_in
from bridge.systems.cards.lines import Polygon, ReadLine, lines_of_text

# In the order of the card; each value ends where the next label begins, or the line.
_LABELS = {
    "province": r"PROVINSI",
    "nik": r"\bN[I1l|]K(?![A-Z])",
    "name": r"\bNama(?:\s+Lengkap)?",
    "birth": r"Tempat\s*[/.]?\s*Tgl\.?\s*Lahir|Tempat\s+Tanggal\s+Lahir",
    "gender": r"Jenis\s+Kelamin",
    "blood": r"Gol\.?\s*Darah",
    "address": r"\bAlamat",
    "rt": r"RT\s*/\s*RW",
    "village": r"Kel\s*/\s*Desa|Kelurahan",
    "district": r"Kecamatan",
    "religion": r"\bAgama",
    "maritalStatus": r"Status\s+Perkawinan",
    "work": r"Pekerjaan",
    "nationality": r"Kewarganegaraan",
    "validity": r"Berlaku\s+Hingga",
    "npwp": r"\bNPWP(?:\s*16)?(?!\w)",
    "kpp": r"\bKPP\b|KANTOR\s+PELAYANAN",
}
_ANY_LABEL = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _LABELS.items()), re.IGNORECASE)
# Those whose value may stand on a line of its own below the label.
_BELOW = frozenset({"nik", "name", "birth", "gender", "address", "religion", "maritalStatus", "npwp"})
_AROUND = " :.-\t"
_NIK_DIGITS = 16
_DATE = re.compile(rf"(?<!\w)({DIGIT_LIKE}{{1,2}})\s*[-/. ]\s*({DIGIT_LIKE}{{1,2}})\s*[-/. ]\s*({DIGIT_LIKE}{{4}})(?!\w)")


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

    @property
    def values(self) -> Mapping[str, str]:
        """The fields without their places."""
        return {name: found.value for name, found in self.fields.items()}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part of a line: what stands behind a label."""

    line: ReadLine
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.line.text[self.start : self.end]

    def field(self, value: str, start: int = 0, end: int | None = None) -> Field:
        """A value that was read from the part, or from a part of it."""
        confidence, polygon = self.line.part(self.start + start, self.end if end is None else self.start + end)
        return Field(value=value, confidence=confidence, page=self.line.page, polygon=polygon)


def card_of(kind: str, lines: Sequence[ReadLine]) -> Card | None:
    """What stands on a KTP or an NPWP; None for another kind of document."""
    reader = {"KTP": _ktp, "NPWP": _npwp}.get(kind.upper())
    return reader(lines) if reader else None


def card_fields(kind: str, text: str) -> Mapping[str, str] | None:
    """The values that were found in a text, of a KTP or an NPWP; None for another kind of document."""
    card = card_of(kind, lines_of_text(text))
    return None if card is None else card.values


def _ktp(lines: Sequence[ReadLine]) -> Card:
    parts = _parts(lines)
    found = {
        "nik": _number(parts.get("nik"), lines, _NIK_DIGITS),
        "name": _plain(parts.get("name")),
        **_birth(parts.get("birth")),
        "address": _plain(parts.get("address")),
        "gender": _gender(parts.get("gender")),
        "religion": _plain(parts.get("religion")),
        "maritalStatus": _plain(parts.get("maritalStatus")),
    }
    province = _plain(parts.get("province"))
    return Card(fields={name: one for name, one in found.items() if one}, province=province.value if province else "")


def _npwp(lines: Sequence[ReadLine]) -> Card:
    parts = _parts(lines)
    whole = [_Part(line=line, start=0, end=len(line.text)) for line in lines]
    number = next((part.field(grouped_npwp(found[0]), *found[1:]) for part in whole if (found := npwp_in(part.text))), None)
    fields = {"npwpNumber": number or _number(parts.get("npwp"), (), _NIK_DIGITS), "name": _plain(parts.get("name"))}
    return Card(fields={name: one for name, one in fields.items() if one})


def _parts(lines: Sequence[ReadLine]) -> Mapping[str, _Part]:
    """What stands behind each label, or below it; of a label that comes twice, the first value."""
    found: dict[str, _Part] = {}
    labels = [list(_ANY_LABEL.finditer(line.text)) for line in lines]
    for number, (line, matches) in enumerate(zip(lines, labels, strict=True)):
        ends = [*(match.start() for match in matches[1:]), len(line.text)]
        for match, end in zip(matches, ends, strict=False):
            name = str(match.lastgroup)
            part = _trimmed(line, match.end(), end)
            below = lines[number + 1] if number + 1 < len(lines) and not labels[number + 1] else None
            if not part.text and match is matches[-1] and name in _BELOW and below is not None:
                part = _trimmed(below, 0, len(below.text))
            if part.text:
                found.setdefault(name, part)
    return found


def _trimmed(line: ReadLine, start: int, end: int) -> _Part:
    text = line.text[start:end]
    start += len(text) - len(text.lstrip(_AROUND))
    return _Part(line=line, start=start, end=max(start, start + len(text.strip(_AROUND))))


def _plain(part: _Part | None) -> Field | None:
    return part.field(" ".join(part.text.split())) if part and part.text else None


def _number(part: _Part | None, lines: Sequence[ReadLine], count: int) -> Field | None:
    """A number of so many digits: behind its label, else the first on the card."""
    candidates = [part] if part else []
    candidates += [_Part(line=line, start=0, end=len(line.text)) for line in lines]
    return next((one.field(found) for one in candidates if (found := digits_of(one.text, count))), None)


def _birth(part: _Part | None) -> Mapping[str, Field | None]:
    """The place and the date, which stand behind one label."""
    if part is None:
        return {}
    date = _DATE.search(part.text)
    place = part.text[: date.start()] if date else part.text
    named = place.strip(" ,.")
    told = part.field(" ".join(named.split()), 0, max(len(place.rstrip(" ,.")), 1)) if named else None
    if date is None:
        return {"birthPlace": told}
    day, month, year = map(mended, date.groups())
    return {"birthPlace": told, "birthDate": part.field(f"{int(day):02d}-{int(month):02d}-{year}", *date.span())}


def _gender(part: _Part | None) -> Field | None:
    """One of the two words that the card has, where it can be told; else as it was read."""
    told = _plain(part)
    if part is None or told is None:
        return None
    letters = re.sub(r"[^A-Z]", "", mended(told.value.upper(), to_letters=True))
    known = "LAKI-LAKI" if letters.startswith("LAK") else "PEREMPUAN" if letters.startswith("PEREM") else ""
    return part.field(known) if known else told
