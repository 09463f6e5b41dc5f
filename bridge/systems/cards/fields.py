"""The fields of Indonesian identity cards (KTP) and tax cards (NPWP), out of their text, under the platform's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

# In the order of the card; each value ends where the next label begins, or the line.
_LABELS = {
    "nik": r"NIK",
    "name": r"Nama(?:\s+Lengkap)?",
    "birth": r"Tempat\s*[/.]?\s*Tgl\.?\s*Lahir|Tempat\s+Tanggal\s+Lahir",
    "gender": r"Jenis\s+Kelamin",
    "blood": r"Gol\.?\s*Darah",
    "address": r"Alamat",
    "rt": r"RT\s*/\s*RW",
    "village": r"Kel\s*/\s*Desa|Kelurahan",
    "district": r"Kecamatan",
    "religion": r"Agama",
    "maritalStatus": r"Status\s+Perkawinan",
    "work": r"Pekerjaan",
    "nationality": r"Kewarganegaraan",
    "validity": r"Berlaku\s+Hingga",
    "npwp": r"NPWP",
    "kpp": r"KPP|KANTOR\s+PELAYANAN",
}
_ANY_LABEL = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _LABELS.items()), re.IGNORECASE)
_KTP_KEYS = ("nik", "name", "birthPlace", "birthDate", "address", "gender", "religion", "maritalStatus")
# What digits are often taken for; mended in digits only.
_LOOKALIKES = str.maketrans("OoQDIl|!ZSsBG", "0000111125586")
_NIK_DIGITS = 16
_NPWP = re.compile(r"(?<!\d)\d{2}\.?\d{3}\.?\d{3}\.?\d-?\d{3}\.?\d{3}(?!\d)")
_DATE = re.compile(r"(\d{1,2})\s*[-/. ]\s*(\d{1,2})\s*[-/. ]\s*(\d{4})")


def card_fields(kind: str, text: str) -> Mapping[str, str] | None:
    """The fields that were found, of a KTP or an NPWP; None for another kind of document."""
    if kind.upper() == "KTP":
        return _ktp(text)
    return _npwp(text) if kind.upper() == "NPWP" else None


def _ktp(text: str) -> Mapping[str, str]:
    values = _values(text)
    found = {
        "nik": _digits(values.get("nik", "") or text, _NIK_DIGITS),
        "name": values.get("name", ""),
        "birthPlace": _DATE.split(values.get("birth", ""))[0].strip(" ,."),
        "birthDate": _date(values.get("birth", "")),
        "address": values.get("address", ""),
        "gender": values.get("gender", ""),
        "religion": values.get("religion", ""),
        "maritalStatus": values.get("maritalStatus", ""),
    }
    return {key: found[key] for key in _KTP_KEYS if found[key]}


def _npwp(text: str) -> Mapping[str, str]:
    values = _values(text)
    number = next((_grouped(match) for match in _NPWP.findall(_mended(text))), "")
    found = {"npwpNumber": number or _digits(values.get("npwp", ""), _NIK_DIGITS), "name": values.get("name", "")}
    return {key: value for key, value in found.items() if value}


def _values(text: str) -> Mapping[str, str]:
    """What stands behind each label; of a label that comes twice, the first value."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        labels = list(_ANY_LABEL.finditer(line))
        ends = [*(label.start() for label in labels[1:]), len(line)]
        for label, end in zip(labels, ends, strict=False):
            value = line[label.end() : end].strip(" :.-\t")
            found.setdefault(str(label.lastgroup), " ".join(value.split()))
    return found


def _mended(text: str) -> str:
    """Runs that are mostly digits, with what was taken for letters mended."""
    return re.sub(r"[\w|!.\-]{10,}", lambda run: run.group().translate(_LOOKALIKES) if _is_number(run.group()) else run.group(), text)


def _is_number(run: str) -> bool:
    return sum(character.isdigit() for character in run) * 2 > len(run)


def _digits(text: str, count: int) -> str:
    found = re.search(rf"(?<!\d)\d{{{count}}}(?!\d)", _mended(text.replace(" ", "") if sum(map(str.isdigit, text)) <= count else text))
    return found.group() if found else ""


def _grouped(number: str) -> str:
    digits = re.sub(r"\D", "", number)
    return f"{digits[:2]}.{digits[2:5]}.{digits[5:8]}.{digits[8]}-{digits[9:12]}.{digits[12:]}"


def _date(text: str) -> str:
    found = _DATE.search(text)
    return f"{int(found[1]):02d}-{int(found[2]):02d}-{found[3]}" if found else ""
