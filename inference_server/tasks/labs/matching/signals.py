"""What is known of a printed test and of each code that it may be, as numbers for the ranker: the features of `catalogue.fit` and more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.fit import EntryTable, Features, Weights, looked_up
from inference_server.tasks.labs.catalogue.lists import Lists
from inference_server.tasks.labs.catalogue.names import base_component
from inference_server.tasks.labs.matching.headings import heading_fit
from inference_server.tasks.labs.matching.retrieve import Query, Retrieved
from inference_server.tasks.labs.parsing.normalise import fold

_PROPERTIES = ("MCnc", "SCnc", "ACnc", "CCnc", "NCnc", "NFr", "PrThr", "Titr")
_SYSTEMS = ("ser/plas", "ser", "plas", "ppp", "bld", "urine", "csf", "stool", "xxx")
_GASES = frozenset({"blda", "bldv", "bldc", "bldco", "bldmv"})
_METHODS = ("automated count", "manual count", "calculated", "ia", "test strip", "confirm", "screen")
_CLASSES = ("CHEM", "HEM/BC", "DRUG/TOX", "MICRO", "SERO", "COAG", "UA")
# Systems that laboratories do not tell apart.
_SERUM = dict.fromkeys(("ser", "plas", "ser/plas/bld"), "ser/plas")
_MOST_WORDS = 8
# Entries of one test that are looked at closely.
MOST_RANKED = 64
_NO_NUMBER = 100_000

# Facts of an entry that no query changes.
FACTS = (
    *(f"property {name}" for name in _PROPERTIES),
    *(f"system {name}" for name in _SYSTEMS),
    "system of a blood gas",
    "system of a fluid",
    *(f"method {name}" for name in _METHODS),
    "has a method",
    *(f"class {name}" for name in _CLASSES),
    "scale Qn",
    "collected at once",
    "component with a ratio",
    "component with a challenge",
    "component with a part",
    "component of many words",
    "number of the code",
    "size of the group",
)
# Facts of a query, and of the two together.
PAIRED = (
    "lexical",
    "meaning",
    "behind the likest name",
    "behind the likest own name",
    "words of the entry that are told",
    "told words that the entry has",
    "heading",
    "specimen told",
    "unit told",
    "value told",
    "number of words",
    "ranked",
)
COLUMNS = (*(field.name for field in fields(Weights)), *PAIRED, "prior", *FACTS)
PRIOR = COLUMNS.index("prior")
# Among the facts.
HAS_METHOD = FACTS.index("has a method")


@dataclass(frozen=True, kw_only=True)
class Shortlists:
    """The entries that are looked at closely, of several queries."""

    # Of each query, their places among those found, the likeliest by hand-set weights first.
    kept: list[NDArray[np.int64]]
    # Of each a row with `COLUMNS`, one query after another.
    rows: Features


class Signals:
    """The facts of a catalogue's entries as arrays, and the columns that the ranker reads."""

    def __init__(self, entries: Sequence[Entry], table: EntryTable) -> None:
        """`table`: the axes of the same entries."""
        self._table = table
        self._weights = Weights().vector()
        sizes = np.bincount(table.group) if len(entries) else np.zeros(0, np.int64)
        self.facts = np.array([_facts(entry) for entry in entries], np.float32).reshape(len(entries), len(FACTS))
        self.facts[:, -1] = np.log1p(sizes[table.group]) / 5
        self.ranked = np.array([entry.rank > 0 for entry in entries], np.float32)
        self.has_twin = _with_twins(entries)
        self._classes = [entry.loinc_class for entry in entries]
        self._systems = [entry.system.lower() for entry in entries]
        self._kinds, self._kind_of = _kinds(self._classes, self._systems)
        self._component = _WordBags([fold(entry.component.replace("^", " ")) for entry in entries])
        self._whole = _WordBags([_whole_text(entry) for entry in entries])
        self._heading = lru_cache(maxsize=1024)(self._heading_values)

    def columns(self, queries: Sequence[Query], found: Sequence[Retrieved], prior: Features) -> Shortlists:
        """The likeliest entries of those found for each query. `prior`: of each entry of the catalogue, as log odds."""
        counts = np.array([len(each.entries) for each in found], np.int64)
        tests = [(query.parsed, query.test.unit) for query in queries]
        name, own = _joined(found, "name"), _joined(found, "own")
        axes = self._table.features(tests, counts, _joined(found, "entries"), (name, own, _joined(found, "exact")))
        kept = self._likeliest(axes, counts)
        lengths = np.array([len(each) for each in kept], np.int64)
        flat = np.concatenate([*kept, np.zeros(0, np.int64)]) + np.repeat(np.cumsum(counts) - counts, lengths)
        rows = np.empty((len(flat), len(COLUMNS)), np.float32)
        rows[:, : axes.shape[1]] = axes[flat]
        entries = _joined(found, "entries")[flat]
        for number, values in enumerate(self._paired(queries, found, flat, entries, lengths), axes.shape[1]):
            rows[:, number] = values
        rows[:, PRIOR] = prior[entries] / 5
        rows[:, PRIOR + 1 :] = self.facts[entries]
        return Shortlists(kept=kept, rows=rows)

    def _paired(
        self,
        queries: Sequence[Query],
        found: Sequence[Retrieved],
        flat: NDArray[np.int64],
        entries: NDArray[np.int32],
        lengths: NDArray[np.int64],
    ) -> tuple[Features, ...]:
        """The columns `PAIRED`. `flat`: the places kept, among all that were found; `lengths`: how many are kept of each query."""
        of = np.repeat(np.arange(len(queries)), lengths)

        def of_query(values: Sequence[float]) -> Features:
            return np.array(values, np.float32)[of]

        told = [{word for reading in query.readings for word in reading.split()} for query in queries]
        return (
            _joined(found, "lexical")[flat],
            _joined(found, "meaning")[flat],
            _joined(found, "name")[flat] - of_query([each.name.max(initial=0) for each in found]),
            _joined(found, "own")[flat] - of_query([each.own.max(initial=0) for each in found]),
            self._component.covered(told, lengths, entries),
            self._whole.covering([query.told for query in queries], lengths, entries),
            looked_up(self._heading, [query.test.heading for query in queries], of, self._kind_of[entries]),
            of_query([bool(query.parsed.specimens) for query in queries]),
            of_query([bool(query.parsed.properties) for query in queries]),
            of_query([bool(query.test.value) for query in queries]),
            of_query([min(len(query.parsed.text.split()), _MOST_WORDS) / _MOST_WORDS for query in queries]),
            self.ranked[entries],
        )

    def _likeliest(self, axes: Features, counts: NDArray[np.integer[Any]]) -> list[NDArray[np.int64]]:
        """Of each test, the places of the rows that the hand-set weights like best: the rest is not worth a closer look."""
        return [_best(scores) for scores in np.split(axes @ self._weights, np.cumsum(counts)[:-1])]

    def _heading_values(self, heading: str) -> Features:
        return np.array([heading_fit(heading, *kind) for kind in self._kinds], np.float32)


class _WordBags:
    """Words of each entry, weighted by how rare they are."""

    def __init__(self, texts: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        # A blank text gets a word of its own, for every entry needs one.
        bags = [sorted({numbers.setdefault(word, len(numbers)) for word in text.split() or ("",)}) for text in texts]
        words = np.array([word for bag in bags for word in bag], np.int32)
        self._numbers = numbers
        self._bags = Lists(words, np.array([len(bag) for bag in bags], np.int64))
        frequency = np.bincount(words, minlength=max(len(numbers), 1))
        self._weight = np.log1p(len(texts) / np.maximum(frequency, 1)).astype(np.float32)
        self._unknown = math.log1p(len(texts))

    def covered(self, told: Sequence[Iterable[str]], counts: NDArray[np.integer[Any]], entries: NDArray[np.int32]) -> Features:
        """Share of each entry's words, by weight, that are told. `told`: by each test; `counts`: how many of the entries are its."""
        shared, whole = self._shared(told, counts, entries)
        return np.asarray(shared / np.maximum(whole, 1e-6), np.float32)

    def covering(
        self, readings: Sequence[Iterable[frozenset[str]]], counts: NDArray[np.integer[Any]], entries: NDArray[np.int32]
    ) -> Features:
        """Share of the told words, by weight, that each entry has; of the reading of its test that it covers best."""
        read = [(test, told) for test, some in enumerate(readings) for told in some if told]
        tests = np.array([test for test, _ in read], np.int64)
        places, lengths = Lists(np.arange(len(entries), dtype=np.int32), counts).of(tests)
        shared, _ = self._shared([told for _, told in read], lengths, entries[places])
        best = np.zeros(len(entries), np.float32)
        np.maximum.at(best, places, shared / np.repeat(np.array([self._weigh(told) for _, told in read], np.float32), lengths))
        return best

    def _weigh(self, told: Iterable[str]) -> float:
        return sum(float(self._weight[self._numbers[word]]) if word in self._numbers else self._unknown for word in told)

    def _shared(
        self, told: Sequence[Iterable[str]], counts: NDArray[np.integer[Any]], entries: NDArray[np.int32]
    ) -> tuple[Features, Features]:
        """Of each entry the weight of its words that its test tells, and of all its words."""
        words, lengths = self._bags.of(entries)
        weights, starts = self._weight[words], np.cumsum(lengths) - lengths
        said = np.zeros((len(told), len(self._weight)), bool)
        for row, some in enumerate(told):
            said[row, [self._numbers[word] for word in some if word in self._numbers]] = True
        hit = said[np.repeat(np.repeat(np.arange(len(told)), counts), lengths), words]
        if not len(starts):
            return weights, weights
        return np.add.reduceat(np.where(hit, weights, np.float32(0)), starts), np.add.reduceat(weights, starts)


def _joined(found: Sequence[Retrieved], field: str) -> NDArray[Any]:
    return np.concatenate([getattr(each, field) for each in found])


def _best(scores: Features) -> NDArray[np.int64]:
    if len(scores) > MOST_RANKED:
        kept = np.argpartition(-scores, MOST_RANKED - 1)[:MOST_RANKED]
        return np.asarray(kept[np.argsort(-scores[kept], kind="stable")], np.int64)
    return np.asarray(np.argsort(-scores, kind="stable"), np.int64)


def _whole_text(entry: Entry) -> str:
    names = (entry.component.replace("^", " "), entry.long_common_name, entry.short_name, *entry.english_names, *entry.indonesian_names)
    return " ".join(map(fold, names))


def _with_twins(entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Which entries differ from another one in nothing but the method, or in serum and plasma."""
    kinds = [
        (entry.component.lower(), entry.property, entry.time_aspect, entry.scale, _SERUM.get(entry.system.lower(), entry.system.lower()))
        for entry in entries
    ]
    counted = Counter(kinds)
    return np.array([counted[kind] > 1 for kind in kinds], bool)


def _kinds(classes: Sequence[str], systems: Sequence[str]) -> tuple[list[tuple[str, str]], NDArray[np.int32]]:
    numbers: dict[tuple[str, str], int] = {}
    of = [numbers.setdefault(kind, len(numbers)) for kind in zip(classes, systems, strict=True)]
    return list(numbers), np.array(of, np.int32)


def _facts(entry: Entry) -> list[float]:
    system, method = entry.system.lower(), entry.method.lower()
    component = base_component(entry.component)
    number = int(entry.code.partition("-")[0]) if entry.code.partition("-")[0].isdigit() else _NO_NUMBER
    truths: list[float] = [
        *(entry.property == name for name in _PROPERTIES),
        *(system == name for name in _SYSTEMS),
        system in _GASES,
        "fld" in system,
        *(method == name for name in _METHODS),
        bool(method),
        *(entry.loinc_class == name for name in _CLASSES),
        entry.scale == "Qn",
        entry.time_aspect in ("Pt", ""),
        "/" in component,
        "^" in entry.component,
        "." in component,
        min(len(component.split()), _MOST_WORDS) / _MOST_WORDS,
        math.log10(max(number, 1)) / 5,
        0.0,
    ]
    return [float(truth) for truth in truths]
