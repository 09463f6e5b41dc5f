"""Printed values are read as they are meant, and flagged against their range."""

from __future__ import annotations

import pytest

from inference_server.tasks.labs.measures.quantities import converted, ucum
from inference_server.tasks.labs.measures.results import Kind, LabResult, lab_result
from inference_server.tasks.labs.parsing.normalise import PrintedTest


def result(value: str, *, unit: str = "", printed_range: str = "", locale: str = "", code: str = "", component: str = "") -> LabResult:
    test = PrintedTest(name="x", value=value, unit=unit, reference_range=printed_range, sex="female", age=30)
    found = lab_result(test, code=code, component=component, locale=locale)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (14.5, {"value": "14,5", "unit": "g/dL"}),
        (245_000, {"value": "245.000", "unit": "/uL"}),
        (245, {"value": "245.000", "unit": "10^3/uL"}),
        (245_000, {"value": "245.000", "printed_range": "150000 - 400000"}),
        (245_000, {"value": "245.000", "locale": "id"}),
        (245, {"value": "245.000", "locale": "en"}),
        (1.025, {"value": "1.025", "printed_range": "1.003 - 1.030"}),
        (4500, {"value": "4,500"}),
        (4.5, {"value": "4,500", "locale": "id"}),
        (4.5, {"value": "4,500", "unit": "juta/uL"}),
        (0.125, {"value": "0,125"}),
        (1234.5, {"value": "1.234,5"}),
        (1234.5, {"value": "1,234.5"}),
        (1_234_567, {"value": "1.234.567"}),
    ],
)
def test_a_number_is_read_by_unit_range_and_locale(number: float, printed: dict[str, str]) -> None:
    reading = result(**printed).reading
    assert (Kind.NUMBER, number) == (reading.kind, reading.number)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ((Kind.NUMBER, "<", 0.5, ""), "<0.5"),
        ((Kind.NUMBER, ">=", 60.0, ""), "≥ 60"),
        ((Kind.TITRE, "", 40.0, ""), "1:40"),
        ((Kind.TITRE, "<", 20.0, ""), "< 1/20"),
        ((Kind.ORDINAL, "", None, "positive"), "Positif"),
        ((Kind.ORDINAL, "", None, "positive"), "+2"),
        ((Kind.ORDINAL, "", None, "positive"), "Reactive"),
        ((Kind.ORDINAL, "", None, "negative"), "Non Reaktif"),
        ((Kind.ORDINAL, "", None, "negative"), "Tidak ditemukan"),
        ((Kind.TEXT, "", None, "kuning jernih"), "kuning jernih"),
    ],
)
def test_bounds_titres_and_words_are_told_apart_and_the_raw_text_is_kept(expected: tuple[object, ...], value: str) -> None:
    reading = result(value).reading
    assert (*expected, value) == (reading.kind, reading.bound, reading.number, reading.text, reading.raw)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        (("normal", "reported range"), {"value": "14,5", "printed_range": "13,0 - 17,5"}),
        (("high", "reported range"), {"value": "450.000", "unit": "/uL", "printed_range": "150.000 - 400.000"}),
        (("low", "reported range"), {"value": "11", "printed_range": "L: 13-17; P: 12-15"}),
        (("normal", "reported range"), {"value": "<0.5", "printed_range": "< 1.0"}),
        (("high", "reported range"), {"value": "1:160", "printed_range": "< 1:80"}),
        (("abnormal", "reported range"), {"value": "Reaktif", "printed_range": "Non Reaktif"}),
        (("low", "sex and age"), {"value": "11", "unit": "g/dL", "code": "718-7", "component": "Hemoglobin"}),
        (("high", "sex and age"), {"value": "6.2", "unit": "mmol/L", "code": "2093-3", "component": "Cholesterol"}),
        (None, {"value": "<50", "printed_range": "13 - 17"}),
        (None, {"value": "11", "unit": "furlong", "code": "718-7"}),
    ],
)
def test_a_result_is_flagged_by_its_range_else_by_sex_and_age(expected: tuple[str, str] | None, printed: dict[str, str]) -> None:
    flagged = result(**printed).flagged
    assert expected == (None if flagged is None else (flagged.flag.value, flagged.basis))


def test_a_mass_is_told_in_moles_too_where_the_molar_mass_is_known() -> None:
    found = result("100", unit="mg/dL", component="Glucose")
    assert (pytest.approx(5.551, abs=0.001), "mmol/L") == (found.converted_number, found.converted_unit)
    assert (None, "") == (result("100", unit="mg/dL", component="Zorblin").converted_number, "")


@pytest.mark.parametrize(
    ("expected", "unit"),
    [("g/dL", "gr/dl"), ("10*6/uL", "juta/uL"), ("10*3/uL", "ribu/µL"), ("/[HPF]", "/lpb"), ("mL/min/{1.73_m2}", "mL/min/1.73m2"),
     ("mg/(24.h)", "mg/24 jam"), ("u[IU]/mL", "µIU/mL"), ("mm/h", "mm/jam"), ("g/dL", "g%"), ("", "")],
)  # fmt: skip
def test_a_unit_is_told_as_ucum_writes_it(expected: str, unit: str) -> None:
    assert expected == ucum(unit)


def test_what_measures_another_thing_is_not_converted() -> None:
    assert [245_000, None, None] == [
        converted(245, "10*3/uL", "/uL"),
        converted(1, "mg/dL", "U/L", "Glucose"),
        converted(1, "mg/dL", "mmol/L", "Albumin"),
    ]
