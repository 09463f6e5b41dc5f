"""What is known of a printed test and of each code that it may be, as numbers for the ranker: the features of `rerank` and more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.entries import Entry
from inference_server.tasks.labs.headings import heading_fit
from inference_server.tasks.labs.names import base_component
from inference_server.tasks.labs.normalise import fold
from inference_server.tasks.labs.rerank import EntryTable, Features, Weights
from inference_server.tasks.labs.retrieve import Query, Retrieved

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
HAS_METHOD = COLUMNS.index("has a method")


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

    def columns(self, query: Query, found: Retrieved, prior: Features) -> tuple[NDArray[np.int64], Features]:
        """Places of the likeliest entries found; of each a row with `COLUMNS`. `prior`: of each entry of the catalogue, as log odds."""
        parsed = query.parsed
        axes = self._table.features(parsed, query.test.unit, found.entries, found.name, found.own, found.exact)
        kept = self._likeliest(axes)
        entries, count = found.entries[kept], axes.shape[1]
        told = {word for reading in query.readings for word in reading.split()}
        paired = (
            found.lexical[kept],
            found.meaning[kept],
            found.name[kept] - found.name.max(initial=0),
            found.own[kept] - found.own.max(initial=0),
            self._component.covered(told, entries),
            self._whole.covering(query.told, entries),
            self._heading(query.test.heading)[self._kind_of[entries]],
            float(bool(parsed.specimens)),
            float(bool(parsed.properties)),
            float(bool(query.test.value)),
            min(len(parsed.text.split()), _MOST_WORDS) / _MOST_WORDS,
            self.ranked[entries],
            prior[entries] / 5,
        )
        rows = np.empty((len(kept), len(COLUMNS)), np.float32)
        rows[:, :count] = axes[kept]
        for number, values in enumerate(paired, count):
            rows[:, number] = values
        rows[:, count + len(paired) :] = self.facts[entries]
        return kept, rows

    def _likeliest(self, axes: Features) -> NDArray[np.int64]:
        """Places of the rows that the hand-set weights like best: the rest is not worth a closer look."""
        scores = axes @ self._weights
        if len(scores) > MOST_RANKED:
            kept = np.argpartition(-scores, MOST_RANKED - 1)[:MOST_RANKED]
            return np.asarray(kept[np.argsort(-scores[kept], kind="stable")], np.int64)
        return np.asarray(np.argsort(-scores, kind="stable"), np.int64)

    def _heading_values(self, heading: str) -> Features:
        return np.array([heading_fit(heading, *kind) for kind in self._kinds], np.float32)


class _WordBags:
    """Words of each entry, weighted by how rare they are."""

    def __init__(self, texts: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        # A blank text gets a word of its own, for every entry needs one.
        bags = [sorted({numbers.setdefault(word, len(numbers)) for word in text.split() or ("",)}) for text in texts]
        self._numbers = numbers
        self._lengths = np.array([len(bag) for bag in bags], np.int32)
        self._starts = np.concatenate(([0], np.cumsum(self._lengths)))[:-1].astype(np.int32)
        self._words = np.array([word for bag in bags for word in bag], np.int32)
        frequency = np.bincount(self._words, minlength=max(len(numbers), 1))
        self._weight = np.log1p(len(texts) / np.maximum(frequency, 1)).astype(np.float32)
        self._unknown = math.log1p(len(texts))

    def covered(self, told: Iterable[str], entries: NDArray[np.int32]) -> Features:
        """Share of each entry's words, by weight, that are told."""
        words, starts, weights = self._of(entries)
        whole = np.add.reduceat(weights, starts) if len(starts) else weights
        return np.asarray(self._shared(told, words, starts, weights) / np.maximum(whole, 1e-6), np.float32)

    def covering(self, readings: Iterable[frozenset[str]], entries: NDArray[np.int32]) -> Features:
        """Share of the told words, by weight, that each entry has; of the reading that it covers best."""
        best = np.zeros(len(entries), np.float32)
        words, starts, weights = self._of(entries)
        for told in readings:
            weight = sum(self._weight[self._numbers[word]] if word in self._numbers else self._unknown for word in told)
            if weight:
                np.maximum(best, self._shared(told, words, starts, weights) / np.float32(weight), out=best)
        return best

    def _of(self, entries: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64], Features]:
        """Words of the entries one after another, where each entry's begin, and their weights."""
        lengths = self._lengths[entries]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        places = np.repeat(self._starts[entries] - starts, lengths) + np.arange(ends[-1] if len(ends) else 0)
        words = self._words[places]
        return words, starts, self._weight[words]

    def _shared(self, told: Iterable[str], words: NDArray[np.int32], starts: NDArray[np.int64], weights: Features) -> Features:
        hit = np.zeros(len(words), bool)
        for word in told:
            if word in self._numbers:
                hit |= words == self._numbers[word]
        return np.asarray(np.add.reduceat(np.where(hit, weights, 0), starts) if len(starts) else weights, np.float32)


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
