"""How well each code fits a printed test: the features of a parsed test and an entry, and their hand-set weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.lists import Lists
from inference_server.tasks.labs.parsing.normalise import ParsedTest
from inference_server.tasks.labs.parsing.units import fold_unit
from inference_server.tasks.labs.parsing.vocabulary import SYSTEMS, USUAL_SYSTEMS

Features = NDArray[np.float32]
_Told = TypeVar("_Told", bound=Hashable)
_RARE_SYSTEM = 0.1
# How usual a property is for a number without a unit.
_USUAL_PROPERTIES = {
    "MCnc": 1.0,
    "NCnc": 1.0,
    "ACnc": 0.95,
    "CCnc": 0.95,
    "NFr": 0.8,
    "SCnc": 0.7,
    "PrThr": 0.7,
    "VFr": 0.9,
    "MFr": 0.8,
    "Titr": 0.5,
}
_RARE_PROPERTY = 0.4
_TEXT_SCALES = frozenset({"Ord", "Nom", "OrdQn", "Nar"})


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weight of each feature; found on development names that no figure of ours is reported on as a test."""

    # Likeness of the name to the best name of the entry's group, 0 to 1.
    name: float = 10.0
    # The same for the names that are the entry's own.
    own_name: float = 2.0
    # An own name equal to the printed one.
    own_exact: float = 1.0
    # Specimen told, and it fits (to 1) or does not (-1).
    specimen: float = 2.5
    # How usual the system is, when no specimen is told.
    usual_system: float = 1.6
    # The unit's property fits (1) or does not (-1).
    property: float = 2.2
    # The same for a property that words hint at.
    hinted_property: float = 0.9
    # How usual the property is when neither unit nor word tells it.
    usual_property: float = 0.7
    # The unit is one that the catalogue lists for the entry.
    listed_unit: float = 0.4
    # Kind of value fits the scale (1) or does not (-1).
    scale: float = 0.9
    # Collection over hours, as told (1) or not (-1).
    collection: float = 2.0
    # Fasting, after a meal, a load: as told (1) or not (-1).
    challenge: float = 2.0
    # Method as told (1), another (-1), or one where none is told (below 0).
    method: float = 1.0
    # Commonness of the test, 0 to 1.
    common: float = 2.0
    # A panel, not a test.
    panel: float = -3.0

    def vector(self) -> Features:
        """In the order of the feature columns."""
        return np.array([getattr(self, field.name) for field in fields(self)], np.float32)


_COLUMNS = {field.name: number for number, field in enumerate(fields(Weights))}


def column(feature: str) -> int:
    """Where a feature stands in a row of features."""
    return _COLUMNS[feature]


class EntryTable:
    """The entries' axes as arrays, so that features of hundreds of entries are looked up at once."""

    def __init__(self, entries: Sequence[Entry], entry_group: NDArray[np.int32]) -> None:
        """`entry_group`: the group of each entry, as `Names` has it."""
        self.group = entry_group
        self._members = Lists.by_key(entry_group, int(entry_group.max(initial=-1)) + 1)
        self._property, self._properties = _codes(entry.property for entry in entries)
        self._system, self._systems = _codes(entry.system.lower() for entry in entries)
        self._scale, self._scales = _codes(entry.scale for entry in entries)
        self._time, self._times = _codes(entry.time_aspect for entry in entries)
        self._method, self._methods = _codes(entry.method.lower() for entry in entries)
        self._challenge, self._challenges = _codes(entry.component.partition("^")[2].lower() for entry in entries)
        self._common = np.array([_commonness(entry.rank) for entry in entries], np.float32)
        self._panel = np.array([entry.scale == "-" or entry.loinc_class.startswith("PANEL") for entry in entries], np.float32)
        self._bearers = _bearers(entries)
        self._of_axis = lru_cache(maxsize=4096)(self._axis_values)

    def members(self, groups: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.integer[Any]]]:
        """Every entry of the groups, one group after another, and how many each has."""
        return self._members.of(groups)

    def features(
        self,
        tests: Sequence[tuple[ParsedTest, str]],
        counts: NDArray[np.integer[Any]],
        entries: NDArray[np.int32],
        found: tuple[Features, ...],
    ) -> Features:
        """One row for each entry, one column for each of `Weights`.

        `tests`: each with its unit; `counts`: of the entries, so many are looked at for each test, in its order; `found`: what the
        retrieval found of each entry by its name, by its own names, and whether one of these is equal.
        """
        of, parsed = np.repeat(np.arange(len(tests)), counts), [test for test, _ in tests]

        def fit(axis: str, told: list[frozenset[str]], codes: NDArray[np.int32]) -> Features:
            return looked_up(lambda some: self._of_axis(axis, some), told, of, codes[entries])

        specimen = fit("specimen", [test.specimens for test in parsed], self._system)
        is_told = np.array([bool(test.specimens) for test in parsed])[of]
        is_guessed = np.array([not (test.properties or test.hinted) for test in parsed])[of]
        columns = [
            *found,
            np.where(is_told, specimen, 0),
            np.where(is_told, 0, specimen),
            fit("property", [test.properties for test in parsed], self._property),
            fit("property", [test.hinted for test in parsed], self._property),
            np.where(is_guessed, fit("usual property", [frozenset()] * len(parsed), self._property), 0),
            self._listed([unit for _, unit in tests], counts, entries),
            fit("scale", [frozenset({test.scale} - {""}) for test in parsed], self._scale),
            fit("collection", [test.timings for test in parsed], self._time),
            fit("challenge", [test.timings for test in parsed], self._challenge),
            fit("method", [test.methods for test in parsed], self._method),
            self._common[entries],
            self._panel[entries],
        ]
        return _side_by_side(columns)

    def _listed(self, units: Sequence[str], counts: NDArray[np.integer[Any]], entries: NDArray[np.int32]) -> Features:
        listed = np.zeros(len(entries), np.float32)
        for unit, end, count in zip(units, np.cumsum(counts).tolist(), counts.tolist(), strict=True):
            bearers = self._bearers.get(fold_unit(unit))
            if bearers is not None:
                some = entries[end - count : end]
                listed[end - count : end] = bearers.take(np.searchsorted(bearers, some), mode="clip") == some
        return listed

    def _axis_values(self, axis: str, told: frozenset[str]) -> Features:
        """What each value of an axis is worth, given what the test tells."""
        values: dict[str, tuple[list[str], Callable[[str, frozenset[str]], float]]] = {
            "specimen": (self._systems, _specimen_fit),
            "property": (self._properties, _property_fit),
            "usual property": (self._properties, _usual_property),
            "scale": (self._scales, _scale_fit),
            "collection": (self._times, _collection_fit),
            "challenge": (self._challenges, _challenge_fit),
            "method": (self._methods, _method_fit),
        }
        names, fit = values[axis]
        return np.array([fit(name, told) for name in names], np.float32)


def _side_by_side(columns: Sequence[Features]) -> Features:
    rows = np.empty((len(columns[0]), len(columns)), np.float32)
    for number, values in enumerate(columns):
        rows[:, number] = values
    return rows


def looked_up(
    values: Callable[[_Told], Features], told: Sequence[_Told], of: NDArray[np.int64], codes: NDArray[np.integer[Any]]
) -> Features:
    """What `values` of its test's `told` has at each code. `of`: the test of each code."""
    numbers: dict[_Told, int] = {}
    rows = np.array([numbers.setdefault(each, len(numbers)) for each in told], np.int64)
    tables = [values(each) for each in numbers]
    return tables[0][codes] if len(tables) == 1 else np.asarray(np.stack(tables)[rows[of], codes])


def _codes(values: Iterable[str]) -> tuple[NDArray[np.int32], list[str]]:
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return np.array(codes, np.int32), list(numbers)


def _bearers(entries: Sequence[Entry]) -> dict[str, NDArray[np.int32]]:
    """Folded unit → the entries that list it."""
    found: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        for unit in {fold_unit(each) for each in entry.units} - {""}:
            found.setdefault(unit, []).append(number)
    return {unit: np.array(numbers, np.int32) for unit, numbers in found.items()}


def _commonness(rank: int) -> float:
    return max(0.0, 1 - float(np.log10(rank)) / 4) if rank else 0.0


def _specimen_fit(system: str, told: frozenset[str]) -> float:
    if not told:
        return USUAL_SYSTEMS.get(system, _RARE_SYSTEM)
    meant = SYSTEMS.get(system, (system,))
    places = [meant.index(specimen) for specimen in told if specimen in meant]
    return 1 - 0.15 * min(places) if places else -1.0


def _property_fit(name: str, told: frozenset[str]) -> float:
    return 0.0 if not told or not name else 1.0 if name in told else -1.0


def _usual_property(name: str, _told: frozenset[str]) -> float:
    return _USUAL_PROPERTIES.get(name, _RARE_PROPERTY)


def _scale_fit(scale: str, told: frozenset[str]) -> float:
    if not told or not scale:
        return 0.0
    is_number = "Qn" in told
    return 1.0 if (scale == "Qn") == is_number and (is_number or scale in _TEXT_SCALES) else -1.0


def _collection_fit(time: str, told: frozenset[str]) -> float:
    hours = {"24 hour": "24H", "12 hour": "12H"}
    wanted = {hours[timing] for timing in told if timing in hours}
    if time in ("Pt", ""):
        return -1.0 if wanted else 0.0
    return 1.0 if time in wanted else -1.0


def _challenge_fit(challenge: str, told: frozenset[str]) -> float:
    if not challenge:
        return -0.6 if told & {"fasting", "post meal"} else 0.0
    kinds = {"fasting": ("cfst", "fasting"), "post meal": ("meal", "pp", "postprandial"), "morning": ("am",), "evening": ("pm",)}
    said = [kind for kind in told if any(mark in challenge for mark in kinds.get(kind, ()))]
    return 1.0 if said else -1.0


def _method_fit(method: str, told: frozenset[str]) -> float:
    if not method:
        return -0.3 if told else 0.0
    if any(part in method for part in told):
        return 1.0
    if told:
        return -1.0
    return -0.1 if method in ("automated count", "calculated") else -0.35 if method in ("test strip", "ia") else -0.6
