"""Units tell the property that a code must have."""

from __future__ import annotations

import pytest

from inference_server.tasks.labs.parsing.units import fold_unit, properties_of


@pytest.mark.parametrize(
    ("unit", "fits"),
    [
        ("mg/dL", "MCnc"),
        ("gr/dl", "MCnc"),
        ("g%", "MCnc"),
        ("µg/L", "MCnc"),
        ("mcg/dL", "MCnc"),
        ("mmol/L", "SCnc"),
        ("mEq/L", "SCnc"),
        ("µIU/mL", "ACnc"),
        ("U/L", "CCnc"),
        ("IU/L", "CCnc"),
        ("%", "NFr"),
        ("fL", "EntVol"),
        ("pg", "EntMass"),
        ("10^3/uL", "NCnc"),
        ("x10³/µL", "NCnc"),
        ("10*9/L", "NCnc"),
        ("juta/uL", "NCnc"),
        ("ribu/µL", "NCnc"),
        ("lakhs/cumm", "NCnc"),
        ("/mm3", "NCnc"),
        ("/hpf", "Naric"),
        ("/LPB", "Naric"),
        ("mm/jam", "Vel"),
        ("detik", "Time"),
        ("mg/24 jam", "MRat"),
        ("mmol/24h", "SRat"),
        ("mg/g", "MRto"),
        ("mL/min/{1.73_m2}", "ArVRat"),
        ("mOsm/kg", "Osmol"),
        ("mmol/mol", "SFr"),
    ],
)
def test_a_unit_fits_its_property(unit: str, fits: str) -> None:
    assert fits in properties_of(unit)


def test_mass_and_substance_concentrations_are_told_apart() -> None:
    assert frozenset() == properties_of("mg/dL") & properties_of("mmol/L")


@pytest.mark.parametrize("unit", ["", "  ", "per visit", "???", "kilo/banana"])
def test_what_is_not_understood_says_nothing(unit: str) -> None:
    assert frozenset() == properties_of(unit)


def test_spellings_of_a_unit_fold_to_one() -> None:
    assert {"ug/dl"} == {fold_unit(unit) for unit in ("µg/dL", "ug / dl", "mcg/dL", "UG/DL")}
