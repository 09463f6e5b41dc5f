"""Units as UCUM writes them, and results from one unit to another: by prefixes, and between mass and moles by the molar mass.

The common units are worked out here, quickly; all others by `ucum.py`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from inference_server.tasks.labs.catalogue.names import base_component
from inference_server.tasks.labs.measures.ucum import in_unit, is_unit
from inference_server.tasks.labs.parsing.units import fold_unit

_DATA = Path(__file__).parents[1] / "data"
_PREFIXES = {"": 1.0, "k": 1e3, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
# Spellings of reports, folded, that UCUM does not know.
_SPELLINGS = {
    "gr": "g", "gm": "g", "gram": "g", "grams": "g", "mgr": "mg", "mcg": "ug", "ltr": "l", "liter": "l", "litre": "l",
    "juta": "10*6", "million": "10*6", "mill": "10*6", "mil": "10*6", "ribu": "10*3", "thou": "10*3", "thousand": "10*3",
    "lakh": "10*5", "lakhs": "10*5", "lac": "10*5", "k": "10*3", "iu": "[IU]", "miu": "m[IU]", "uiu": "u[IU]", "kiu": "k[IU]",
    "cumm": "uL", "mm3": "uL", "cmm": "uL", "mmk": "uL", "cu.mm": "uL", "mcl": "uL", "ul": "uL", "dl": "dL", "ml": "mL", "l": "L",
    "nl": "nL",
    "hpf": "[HPF]", "lpf": "[LPF]", "lpb": "[HPF]", "lpk": "[LPF]", "lp": "{field}", "jam": "h", "hr": "h", "hour": "h",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "detik": "s", "menit": "min", "day": "d", "hari": "d",
    "u": "U", "mu": "mU", "uu": "uU", "ku": "kU", "fl": "fL", "pl": "pL", "meq": "meq", "persen": "%", "sel": "{cells}", "cells": "{cells}",
    "cell": "{cells}", "copies": "{copies}", "kopi": "{copies}", "titer": "{titer}", "titre": "{titer}", "index": "{index}",
    "ratio": "{ratio}", "rasio": "{ratio}", "inr": "{INR}", "mmhg": "mm[Hg]",
    "ct": "{Ct}", "°c": "Cel", "°f": "[degF]", "mosm": "mosm", "1p73m2": "{1.73_m2}", "1.73m2": "{1.73_m2}",
}  # fmt: skip
_POWER = re.compile(r"x?10[*^e]?(\d+)")
_MEASURED = re.compile(r"([kdcmunpf]?)(g|mol|L|U|\[IU\]|eq)")
_COUNTED_HOURS = re.compile(r"\(\d+\.h\)")
_BRACKET = re.compile(r"[\[{(]")
_COUNTED = re.compile(r"10\*(\d+)")


_SPELT = frozenset(_SPELLINGS.values())


@lru_cache(maxsize=4096)
def ucum(unit: str) -> str:
    """A printed unit as UCUM writes it; empty when there is none, as printed where it is not known."""
    printed = unit.strip().replace("µ", "u").replace("μ", "u")
    folded = fold_unit(unit)
    if not folded.strip("/"):
        return unit.strip()
    if folded in ("g%", "gr%", "gm%"):
        return "g/dL"
    if folded == "mg%":
        return "mg/dL"
    parts = [_part(part) for part in folded.split("/")]
    mended = "/".join(parts)
    # Brackets are folded away, and say what is measured: mm[Hg] is no length.
    if _BRACKET.search(printed) and is_unit(printed):
        return printed
    if all(part in _SPELT or _COUNTED_HOURS.fullmatch(part) or _scale(part) is not None for part in parts):
        return mended
    # Pa is no picoyear, but some print everything in capitals, and ML/MIN are no megalitres.
    as_printed_first = mended.lower() == printed.lower() and not printed.isupper()
    candidates = (printed, mended) if as_printed_first else (mended, printed)
    return next((candidate for candidate in candidates if is_unit(candidate)), unit.strip())


def _part(text: str) -> str:
    power = _POWER.fullmatch(text)
    if power:
        return f"10*{power[1]}"
    counted = re.fullmatch(r"(\d+)(h|hr|jam|hours?)", text)
    return f"({counted[1]}.h)" if counted else _SPELLINGS.get(text, text)


def converted(number: float, unit: str, wanted: str, component: str = "") -> float | None:
    """A number of one UCUM unit in another; None when they measure different things. `component`: LOINC's, for mass and moles."""
    given, asked = _dimension(unit), _dimension(wanted)
    mass = molar_masses().get(base_component(component))
    if given is None or asked is None:
        return in_unit(number, unit, wanted, grams_per_mole=mass)
    if given[2] != asked[2]:
        return None
    factor = given[0] / asked[0]
    if given[1] != asked[1]:
        if mass is None or {given[1], asked[1]} != {"g", "mol"}:
            return None
        factor *= 1 / mass if given[1] == "g" else mass
    return number * factor


def other_unit(unit: str, component: str) -> str:
    """The unit of the other system: mmol/L for mg/dL of what has a molar mass; empty when there is none."""
    dimension = _dimension(unit)
    if dimension is None or dimension[2] != "L" or base_component(component) not in molar_masses():
        return ""
    if dimension[1] == "mol":
        return {"mmol/L": "mg/dL", "umol/L": "mg/dL", "nmol/L": "ng/mL", "pmol/L": "pg/mL"}.get(unit, "")
    return {"mg/dL": "mmol/L", "g/L": "mmol/L", "mg/L": "umol/L", "ug/dL": "umol/L", "ug/L": "nmol/L", "ng/mL": "nmol/L", "ng/dL": "nmol/L",
            "pg/mL": "pmol/L", "ng/L": "pmol/L"}.get(unit, "") if dimension[1] == "g" else ""  # fmt: skip


@cache
def molar_masses() -> Mapping[str, float]:
    """Grams of a mole, by LOINC component."""
    with (_DATA / "molar_masses.csv").open(encoding="utf-8", newline="") as file:
        return {row["component"]: float(row["grams_per_mole"]) for row in csv.DictReader(file)}


def _dimension(unit: str) -> tuple[float, str, str] | None:
    """Factor to the base unit, what is measured, and of what."""
    top, _, bottom = unit.partition("/")
    above, below = _scale(top), _scale(bottom) if bottom else (1.0, "")
    return None if above is None or below is None else (above[0] / below[0], above[1], below[1])


def _scale(text: str) -> tuple[float, str] | None:
    if (measured := _MEASURED.fullmatch(text)) is not None:
        # An equivalent is a mole of what has one charge, as sodium and chloride have.
        return _PREFIXES[measured[1]], {"eq": "mol"}.get(measured[2], measured[2])
    if (counted := _COUNTED.fullmatch(text)) is not None:
        return 10.0 ** int(counted[1]), "count"
    return {"": (1.0, "count"), "{cells}": (1.0, "count"), "%": (1.0, "%")}.get(text)
