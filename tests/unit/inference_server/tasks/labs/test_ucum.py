"""Units as UCUM knows them, the uncommon ones too."""

from __future__ import annotations

import pytest

from inference_server.tasks.labs.measures.quantities import converted, ucum
from inference_server.tasks.labs.measures.ucum import in_unit, is_unit


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("mm[Hg]", "mm[Hg]"),
        ("ug{FEU}/mL", "ug{FEU}/mL"),
        ("mmol/(24.h)", "mmol/(24.h)"),
        ("/[HPF]", "/[HPF]"),
        ("kPa", "kPa"),
        ("Pa", "Pa"),
        ("mL/min", "ML/MIN"),
        ("mosm/kg", "mOsm/kg"),
        ("10*3/uL", "K/uL"),
        ("Cel", "°C"),
        ("ukat/L", "µkat/L"),
        ("furlong", "furlong"),
        ("(((((((", "((((((("),
        ("Index/Ratio" * 20, "Index/Ratio" * 20),
    ],
)
def test_a_printed_unit_is_told_as_ucum_writes_it_or_as_it_stands(expected: str, printed: str) -> None:
    assert expected == ucum(printed)


@pytest.mark.parametrize(
    ("expected", "number", "unit", "wanted", "component"),
    [
        (15.99869, 120, "mm[Hg]", "kPa", ""),
        (98.6, 37, "Cel", "[degF]", ""),
        (3.6, 60, "mL/min", "L/h", ""),
        (180.156, 1, "mmol/(24.h)", "mg/(24.h)", "Glucose"),
        (1.0, 1, "ug{FEU}/mL", "mg{FEU}/L", "Fibrin D-dimer"),
        (0.016667, 1, "U/L", "ukat/L", ""),
    ],
)
def test_a_number_is_told_in_another_unit_of_what_is_measured(
    expected: float, number: float, unit: str, wanted: str, component: str
) -> None:
    assert pytest.approx(expected, rel=1e-4) == converted(number, unit, wanted, component)


@pytest.mark.parametrize(
    ("unit", "wanted", "component"),
    [
        # The same text but for what it counts: equivalents of fibrinogen are about twice the D-dimers.
        ("ug{FEU}/mL", "ug/mL", "Fibrin D-dimer"),
        ("[IU]/L", "{cells}/L", ""),
        ("mL/min", "mL", ""),
        ("mmol/(24.h)", "mg/(24.h)", "Zorblin"),
        ("furlong", "kPa", ""),
    ],
)
def test_what_measures_or_counts_another_thing_is_not_converted(unit: str, wanted: str, component: str) -> None:
    assert converted(1, unit, wanted, component) is None


def test_upper_and_lower_case_tell_units_apart() -> None:
    assert [True, False, True] == [is_unit("mm[Hg]"), is_unit("MM[hg]"), is_unit("MPa")]
    assert pytest.approx(1e9) == in_unit(1, "MPa", "mPa")
