"""Reads what was measured: numbers of either locale, bounds, titres, words; and says whether it lies within its range."""

from __future__ import annotations

import csv
import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from inference_server.tasks.labs.measures.quantities import converted, other_unit, ucum
from inference_server.tasks.labs.parsing.normalise import PrintedTest, fold

_DATA = Path(__file__).parents[1] / "data"
_NUMBER = r"[-+]?\d+(?:[.,'\u00a0 ]?\d+)*"
_VALUE = re.compile(rf"(?P<bound>[<>≤≥]=?)?\s*(?P<number>{_NUMBER})\s*(?:[%*]|[HL]|\(?[HL]\)?)?")
_TITRE = re.compile(r"(?P<bound>[<>≤≥]=?)?\s*1\s*[:/]\s*(?P<number>\d+(?:[.,]\d{3})*)")
_RANGE = re.compile(rf"(?P<low>{_NUMBER})\s*(?:-|–|—|to|s/d|sampai|sd)\s*(?P<high>{_NUMBER})")
_ONE_SIDED = re.compile(
    rf"(?P<bound><=?|≤|>=?|≥|up to|hingga|kurang dari|lebih dari|less than|more than)\s*(?P<number>{_NUMBER})", re.IGNORECASE
)
_BY_SEX = re.compile(
    r"\b(?P<sex>laki[- ]?laki|pria|male|men|l|m|perempuan|wanita|female|women|p|f)\s*[:=]\s*(?P<range>[^;,/|]+)", re.IGNORECASE
)
_MALE = frozenset({"laki-laki", "laki laki", "lakilaki", "pria", "male", "men", "l", "m"})
_BELOW = frozenset({"<", "<=", "≤", "up to", "hingga", "kurang dari", "less than"})
_NEGATIVE = frozenset(["negative", "negatif", "nonreactive", "nonreaktif", "neg", "absent", "undetected", "nil"])
_POSITIVE = frozenset(["positive", "positif", "reactive", "reaktif", "pos", "present", "detected", "terdeteksi", "ditemukan"])
_NOT = frozenset({"non", "not", "tidak", "tak", "no", "none", "belum"})
_GRADE = re.compile(r"(?:[+]{1,4}|[+]?\s*[1-4]\s*[+]|[+]\s*[1-4]|[+]\s*\(?[1-4]\)?)")
_COUNTS = frozenset({"/uL", "{cells}/uL", "/mm3", "{cells}/mm3"})


class Kind(enum.Enum):
    """What sort of result it is."""

    NUMBER = "number"
    TITRE = "titre"
    ORDINAL = "ordinal"
    TEXT = "text"


class Flag(enum.Enum):
    """Where it lies."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    ABNORMAL = "abnormal"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Of whom the test is; both may be unknown."""

    # male, female or empty.
    sex: str = ""
    # In years.
    age: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A result that was read."""

    # As printed.
    raw: str
    kind: Kind
    # <, >, <= or >= where the number is a bound; else empty.
    bound: str = ""
    # The number, or what a titre is one to; None for words.
    number: float | None = None
    # positive, negative, or the words as printed; empty for numbers.
    text: str = ""
    # In UCUM's spelling; empty without one.
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Flagged:
    """Where a result lies, and by what."""

    flag: Flag
    # reported range, or sex and age.
    basis: str


@dataclass(frozen=True, kw_only=True)
class LabResult:
    """A result, where it lies, and what it is in the other system of units."""

    reading: Reading
    # None when nothing tells.
    flagged: Flagged | None = None
    # None when it has no other unit.
    converted_number: float | None = None
    converted_unit: str = ""


def lab_result(test: PrintedTest, *, code: str = "", component: str = "", locale: str = "") -> LabResult | None:
    """All of a printed value; None without one. `code`, `component`: of a believed match."""
    reading = read_result(test, locale)
    if reading is None:
        return None
    flagged = flag(reading, test, Person(sex=test.sex, age=test.age), code=code, component=component, locale=locale)
    other = other_unit(reading.unit, component) if reading.kind is Kind.NUMBER and reading.number is not None else ""
    number = converted(reading.number, reading.unit, other, component) if other and reading.number is not None else None
    return LabResult(reading=reading, flagged=flagged, converted_number=number, converted_unit=other if number is not None else "")


def read_result(test: PrintedTest, locale: str = "") -> Reading | None:
    """What a printed value says; None without one. `locale`: id or en, for numbers that nothing else makes plain; may be empty."""
    raw = test.value.strip()
    if not raw:
        return None
    unit = ucum(test.unit)
    if (titre := _TITRE.fullmatch(raw)) is not None:
        number = float(re.sub(r"\D", "", titre["number"]))
        return Reading(raw=raw, kind=Kind.TITRE, bound=_bound(titre["bound"]), number=number, unit=unit)
    if (value := _VALUE.fullmatch(raw)) is not None and not _GRADE.fullmatch(raw):
        found = number_of(value["number"], locale=locale, unit=unit, beside=_numbers(test.reference_range))
        return Reading(raw=raw, kind=Kind.NUMBER, bound=_bound(value["bound"]), number=found, unit=unit)
    said = _ordinal(raw)
    return Reading(raw=raw, kind=Kind.ORDINAL if said else Kind.TEXT, text=said or raw, unit=unit)


def number_of(text: str, *, locale: str = "", unit: str = "", beside: Sequence[str] = ()) -> float:
    """A printed number: `14,5` is 14.5, `1.234,5` and `1,234.5` are the same, `245.000` is what unit, range and locale make likely."""
    plain = re.sub(r"['\u00a0 ]", "", text)
    marks = re.findall(r"[.,]", plain)
    if not marks:
        return float(plain)
    if len(set(marks)) == 2:
        decimal = marks[-1]
        return float(plain.replace("," if decimal == "." else ".", "").replace(decimal, "."))
    mark = marks[0]
    as_thousands, as_decimal = float(plain.replace(mark, "")), plain.replace(mark, ".")
    grouped = all(len(part) == 3 for part in plain.split(mark)[1:]) and re.match(r"[-+]?[1-9]", plain)
    if len(marks) > 1:
        return as_thousands
    if not grouped:
        return float(as_decimal)
    return as_thousands if _is_thousands(mark, as_thousands, float(as_decimal), locale, unit, beside) else float(as_decimal)


def _is_thousands(mark: str, thousands: float, decimal: float, locale: str, unit: str, beside: Sequence[str]) -> bool:
    """Of a number with three digits after its one mark: the unit tells, then the range, then the locale, then the mark."""
    if unit in _COUNTS:
        # Cells are counted in whole numbers.
        return True
    if unit.startswith("10*"):
        return False
    # Numbers of the range that leave no doubt: "150000", "4.5".
    plain = [float(each.replace(",", ".")) for each in beside if not re.search(r"[.,]\d{3}$", each) and len(re.findall(r"[.,]", each)) < 2]
    if plain and all(number > 0 for number in plain):
        middle = sum(map(math.log, plain)) / len(plain)
        return abs(math.log(thousands) - middle) < abs(math.log(decimal) - middle)
    return mark == ("." if locale == "id" else ",")


def flag(reading: Reading, test: PrintedTest, person: Person, *, code: str = "", component: str = "", locale: str = "") -> Flagged | None:
    """Where a result lies against the printed range, else against the usual one of a code for sex and age; None when neither tells."""
    reported = _against_reported(reading, test, person, locale)
    if reported is not None:
        return Flagged(flag=reported, basis="reported range")
    if reading.number is None or reading.kind is not Kind.NUMBER or not reading.unit:
        return None
    for low, high, unit in _usual(code, person):
        number = converted(reading.number, reading.unit, unit, component)
        number = reading.number if number is None and reading.unit == unit else number
        if number is not None and (found := _compared(number, reading.bound, low, high)) is not None:
            return Flagged(flag=found, basis="sex and age")
    return None


def _against_reported(reading: Reading, test: PrintedTest, person: Person, locale: str) -> Flag | None:
    printed = test.reference_range.strip()
    if not printed:
        return None
    if reading.kind is Kind.ORDINAL:
        expected = _ordinal(printed)
        return None if not expected else Flag.NORMAL if expected == reading.text else Flag.ABNORMAL
    if reading.number is None:
        return None
    if reading.kind is Kind.TITRE:
        bound = re.search(r"<\s*1\s*[:/]\s*(\d+)", printed)
        return None if bound is None else Flag.NORMAL if reading.number < float(bound[1]) or reading.bound.startswith("<") else Flag.HIGH
    limits = range_of(printed, person, locale=locale, unit=reading.unit)
    return None if limits is None else _compared(reading.number, reading.bound, *limits)


def range_of(printed: str, person: Person, *, locale: str = "", unit: str = "") -> tuple[float | None, float | None] | None:
    """Low and high of a printed range, either of which may be None; None when it is not understood."""
    by_sex = {("male" if each["sex"].lower() in _MALE else "female"): each["range"] for each in _BY_SEX.finditer(printed)}
    if by_sex:
        if person.sex not in by_sex:
            return None
        printed = by_sex[person.sex]
    numbers = _numbers(printed)
    if (two := _RANGE.search(printed)) is not None:
        low, high = (number_of(two[side], locale=locale, unit=unit, beside=numbers) for side in ("low", "high"))
        return (low, high) if low <= high else None
    if (one := _ONE_SIDED.search(printed)) is not None:
        number = number_of(one["number"], locale=locale, unit=unit, beside=numbers)
        return (None, number) if one["bound"].lower() in _BELOW else (number, None)
    return None


def _compared(number: float, bound: str, low: float | None, high: float | None) -> Flag | None:
    if low is not None and (number < low or (number == low and bound == "<")):
        # Below a bound that is itself above the low end, nothing is known.
        return None if bound.startswith(">") else Flag.LOW
    if high is not None and (number > high or (number == high and bound == ">")):
        return None if bound.startswith("<") else Flag.HIGH
    if (bound.startswith("<") and low is not None) or (bound.startswith(">") and high is not None):
        return None
    return Flag.NORMAL


def _usual(code: str, person: Person) -> list[tuple[float | None, float | None, str]]:
    if person.age is None:
        return []
    rows = _ranges().get(code, ())
    fitting = (row for row in rows if row["sex"] in ("", person.sex) and float(row["from_years"]) <= person.age < float(row["to_years"]))
    return [(_limit(row["low"]), _limit(row["high"]), row["unit"]) for row in fitting]


@cache
def _ranges() -> Mapping[str, Sequence[Mapping[str, str]]]:
    found: dict[str, list[Mapping[str, str]]] = {}
    with (_DATA / "reference_ranges.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["code"], []).append(row)
    return found


def _limit(text: str) -> float | None:
    return float(text) if text else None


def _numbers(text: str) -> list[str]:
    return re.findall(_NUMBER.replace("'\\u00a0 ", ""), text.replace("-", " "))


def _bound(text: str | None) -> str:
    return (text or "").replace("≤", "<=").replace("≥", ">=").replace("==", "=")


def _ordinal(text: str) -> str:
    """positive, negative, or empty for other words."""
    if _GRADE.fullmatch(text.strip()):
        return "positive"
    words = fold(text).split()
    if text.strip() in ("-", "(-)", "neg (-)"):
        return "negative"
    if text.strip() == "(+)":
        return "positive"
    negated = any(word in _NOT for word in words)
    if any(word in _NEGATIVE for word in words):
        return "negative"
    if any(word in _POSITIVE for word in words):
        return "negative" if negated else "positive"
    return ""
