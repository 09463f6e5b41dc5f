"""The built-in catalogue: its shape, and that no name or unit points at two tests."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from importlib import resources
from itertools import combinations

import pytest

HEADER = (
    "code,component,property,time_aspect,system,scale,method,long_common_name,short_name,category,units,english_names,indonesian_names,rank"
)
CATEGORIES = {
    "Liver Function Tests (LFT)",
    "Kidney Function Tests (KFT)",
    "Complete Blood Count (CBC)",
    "Electrolyte Panel",
    "Cardiac Markers",
    "Diabetes Panel",
    "Lipid Profile",
    "Thyroid Profile",
    "Hormonal Panel",
    "Vitamin & Mineral Panel",
    "Infection Markers",
    "Urine & Stool Tests",
    "Tumor Markers",
    "Others",
}
# What a unit of each LOINC property looks like; properties that are absent may have any unit.
UNIT_OF_PROPERTY = {
    "MCnc": r"([munp]?g|gr)/(dL|L|mL)( (FEU|DDU))?|(mg|g)?%|index",
    "SCnc": r"([munp]?mol|mEq)/L",
    "ACnc": r".*(IU|U)/(mL|L|dL)|E\.U\./dL|kUA/L|Todd units|index|COI",
    "CCnc": r"(k?U|IU)/L|ng/mL/hr?",
    "NCnc": r"(10\^\d+|ribu|juta|lakh|million|cells|copies|[KM])?/(uL|L|mL|mm3|cumm)",
    "MRat": r"[mu]?g/(24h|day)",
    "SRat": r"m(mol|Eq)/24h",
    "MFr": r"%",
    "NFr": r"%",
    "VFr": r"%|L/L|vol%",
    "SFr": r"%|mmol/mol",
    "Titr": r"titer",
    "EntVol": r"fL|um3",
    "EntMass": r"pg",
    "PPres": r"mmHg|kPa",
    "Naric": r"/(HPF|LPB|LPF|LPK)",
}
LISTS = ("units", "english_names", "indonesian_names")


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("inference_server.tasks.labs") / "data" / name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def entries() -> list[dict[str, str]]:
    return _rows("catalogue.csv")


def _names(row: dict[str, str]) -> set[str]:
    return {name.casefold() for name in f"{row['english_names']}|{row['indonesian_names']}".split("|")}


def _units(row: dict[str, str]) -> set[str]:
    return set(filter(None, row["units"].split("|")))


def _check_digit(number: str) -> int:
    """LOINC's mod 10: every second digit from the right is doubled and its digits are added."""
    doubled = "".join(str(int(digit) * (2 - place % 2)) for place, digit in enumerate(reversed(number)))
    return -sum(map(int, doubled)) % 10


def test_header_is_the_one_that_is_documented() -> None:
    first = (resources.files("inference_server.tasks.labs") / "data" / "catalogue.csv").read_text("utf-8").splitlines()[0]
    assert first == HEADER


def test_at_least_450_tests_each_with_its_own_code(entries: list[dict[str, str]]) -> None:
    assert len(entries) >= 450
    assert len(entries) == len({row["code"] for row in entries})


def test_every_code_has_a_valid_check_digit(entries: list[dict[str, str]]) -> None:
    wrong = [
        row["code"]
        for row in entries
        if not re.fullmatch(r"\d{1,5}-\d", row["code"]) or f"{_check_digit(row['code'][:-2])}" != row["code"][-1]
    ]
    assert wrong == []


def test_ranks_are_one_to_the_number_of_tests(entries: list[dict[str, str]]) -> None:
    assert sorted(int(row["rank"]) for row in entries) == list(range(1, len(entries) + 1))


def test_every_category_is_a_known_one_and_none_is_empty(entries: list[dict[str, str]]) -> None:
    assert {row["category"] for row in entries} == CATEGORIES


def test_names_and_axes_are_filled(entries: list[dict[str, str]]) -> None:
    filled = ("component", "property", "time_aspect", "system", "scale", "long_common_name", "short_name")
    assert [row["code"] for row in entries if not all(row[column] for column in filled)] == []
    assert [row["code"] for row in entries if not 2 <= len(row["english_names"].split("|")) <= 8] == []
    assert [row["code"] for row in entries if not row["indonesian_names"]] == []


@pytest.mark.parametrize("column", LISTS)
def test_lists_hold_no_empty_repeated_or_padded_item(entries: list[dict[str, str]], column: str) -> None:
    for row in entries:
        items = row[column].split("|") if row[column] else []
        assert len(items) == len({item.casefold() for item in items} - {""}), row["code"]
        assert items == [item.strip() for item in items], row["code"]


def test_units_fit_the_property(entries: list[dict[str, str]]) -> None:
    wrong = [
        (row["code"], row["property"], unit)
        for row in entries
        for unit in _units(row)
        if row["property"] in UNIT_OF_PROPERTY and not re.fullmatch(UNIT_OF_PROPERTY[row["property"]], unit)
    ]
    assert wrong == []


def test_ordinal_and_nominal_results_have_no_unit(entries: list[dict[str, str]]) -> None:
    assert [row["code"] for row in entries if row["scale"] in ("Ord", "Nom", "Nar") and row["units"]] == []


def test_a_name_of_two_tests_is_told_apart_by_property_or_specimen_and_by_unit(entries: list[dict[str, str]]) -> None:
    named = defaultdict(list)
    for row in entries:
        for name in _names(row):
            named[name].append(row)
    clashes = [
        (name, one["code"], other["code"])
        for name, rows in named.items()
        for one, other in combinations(rows, 2)
        if (one["property"], one["system"]) == (other["property"], other["system"])
        or _units(one) & _units(other)
        or not (one["units"] or other["units"])
    ]
    assert clashes == []


@pytest.mark.parametrize(
    ("name", "unit", "code"),
    [
        ("Hemoglobin", "g/dL", "718-7"),
        ("Leukosit", "10^3/uL", "6690-2"),
        ("Trombosit", "ribu/uL", "777-3"),
        ("Gula Darah Sewaktu", "mg/dL", "2345-7"),
        ("Gula Darah Puasa", "mg/dL", "1558-6"),
        ("Gula Darah Puasa", "mmol/L", "14771-0"),
        ("HbA1c", "%", "4548-4"),
        ("HbA1c", "mmol/mol", "59261-8"),
        ("Kolesterol Total", "mg/dL", "2093-3"),
        ("Kolesterol Total", "mmol/L", "14647-2"),
        ("Kreatinin", "mg/dL", "2160-0"),
        ("Kreatinin", "umol/L", "14682-9"),
        ("Neutrofil", "%", "770-8"),
        ("Neutrofil", "10^3/uL", "751-8"),
        ("PCT", "%", "51637-7"),
        ("PCT", "ng/mL", "33959-8"),
        ("CKMB", "U/L", "32673-6"),
        ("CKMB", "ng/mL", "13969-1"),
        ("Widal O", "titer", "42959-7"),
        ("Leukosit Urin", "/LPB", "5821-4"),
        ("SGPT", "U/L", "1742-6"),
        ("TSH", "uIU/mL", "3016-3"),
    ],
)
def test_name_and_unit_point_at_one_code(entries: list[dict[str, str]], name: str, unit: str, code: str) -> None:
    assert [row["code"] for row in entries if name.casefold() in _names(row) and unit in _units(row)] == [code]


def test_abbreviations_are_lower_case_filled_and_change_something() -> None:
    pairs = [(row["short"], row["long"]) for row in _rows("abbreviations.csv")]
    assert len(pairs) >= 150
    assert len(pairs) == len(set(pairs))
    assert [pair for pair in pairs if pair[0] != pair[0].lower() or pair[1] != pair[1].lower() or not all(pair) or pair[0] == pair[1]] == []
