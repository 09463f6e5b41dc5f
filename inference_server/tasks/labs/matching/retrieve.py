"""Finds the entries whose names resemble a query: by words, by letters and by meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.catalogue.catalogue import Catalogue
from inference_server.tasks.labs.embed import Vectors
from inference_server.tasks.labs.parsing.normalise import ParsedTest, PrintedTest, fold, parse, split_axes

Scores = NDArray[np.float32]
_PARENTHESIS = re.compile(r"[(\[]([^()\[\]]{2,})[)\]]?")
_MOST_READINGS = 10
# How far a part of the name stands for the whole.
_PART = 0.97
_SHORTEST_PART = 2
# Share of the best likeness that a name must have to be looked at closely, and one that spares time where enough names have it.
_LOOKED_AT, _NEAR = 0.4, 0.7
# A lexical likeness that is 1 but for rounding.
_EQUAL = 0.999


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings:
    """How names are compared."""

    # Share of words, against letters, in the lexical likeness.
    word_share: float = 0.6
    # Share of the embedding in the likeness of a name.
    embedding_share: float = 0.25
    # Names that are looked at closely, of each way of retrieval.
    retrieved: int = 60


@dataclass(frozen=True, kw_only=True)
class Query:
    """A parsed test and the readings of its name."""

    test: PrintedTest
    parsed: ParsedTest
    # Folded texts that are looked up, the printed one first, and how far each stands for the whole name, 0 to 1.
    readings: Mapping[str, float]
    # Those of them that leave nothing of the name out.
    whole: frozenset[str]
    # Words of the analyte, in each of its written-out readings.
    told: tuple[frozenset[str], ...]
    # The text that is embedded.
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Entries with a name like the query's; all arrays have one value for each."""

    # Places of the entries in the catalogue.
    entries: NDArray[np.int32]
    # Likeness of the best name of the entry's group, 0 to 1; then of the entry's own names; then 1 where an own name is equal.
    name: Scores
    own: Scores
    exact: Scores
    # Of the group's names, the likeness by words and letters, and by embedding.
    lexical: Scores
    meaning: Scores


class Retriever:
    """Looks queries up in one catalogue."""

    def __init__(self, catalogue: Catalogue, vectors: Vectors, settings: RetrievalSettings) -> None:
        """`vectors`: the embedded meanings of the catalogue's names."""
        self._catalogue = catalogue
        self._vectors = vectors
        self._settings = settings

    def read(self, test: PrintedTest) -> Query:
        """Parse a test; mend its spaces, take parentheses apart and write out its abbreviations."""
        parsed = parse(test)
        readings = {parsed.text: 1.0, parsed.analyte: 1.0}
        for part in _parts(test.name):
            for text in (part, split_axes(part)[1]):
                if len(text) >= _SHORTEST_PART:
                    readings.setdefault(text, _PART)
        for text, strength in tuple(readings.items()):
            joined = self._catalogue.index.joined(text)
            if joined:
                readings.setdefault(joined, strength)
        written_out = self._catalogue.abbreviations.expand(parsed.analyte)
        joined_analyte = self._catalogue.index.joined(parsed.analyte)
        for text, strength in tuple(readings.items()):
            for reading in self._catalogue.abbreviations.expand(text):
                readings.setdefault(reading, strength)
        kept = dict(tuple(readings.items())[:_MOST_READINGS])
        meant = self._catalogue.abbreviations.expand(parsed.text)
        whole = frozenset((parsed.text, self._catalogue.index.joined(parsed.text), *meant))
        return Query(
            test=test,
            parsed=_completed(parsed, meant),
            readings=kept,
            whole=whole,
            told=tuple(frozenset(text.split()) for text in dict.fromkeys((parsed.analyte, *written_out, *filter(None, (joined_analyte,))))),
            meaning=written_out[0] if written_out else parsed.analyte,
        )

    def meanings(self, vectors: Vectors) -> Scores:
        """Likeness by embedding, 0 to 1, of queries (rows) with every name of the catalogue (columns). Leaves the interpreter to others."""
        likeness = np.asarray(vectors @ self._vectors.T, np.float32)
        return np.maximum(likeness, 0, out=likeness).take(self._catalogue.names.text_meaning, axis=1)

    def retrieve(self, query: Query, meaning: Scores, *, hidden: Collection[str] = ()) -> Retrieved:
        """The entries with the likeliest names. `meaning`: the query's row of `meanings`; `hidden`: folded names that are not looked at."""
        names, share = self._catalogue.names, np.float32(self._settings.embedding_share)
        position = self._catalogue.index.position
        lexical = self._lexical(query)
        exact = [position[text] for text in query.whole if text in position and text not in hidden]
        unseen = [position[text] for text in hidden if text in position]
        if unseen:
            meaning = meaning.copy()
            lexical[unseen] = meaning[unseen] = 0
        combined = lexical * (1 - share) + meaning * share
        combined[np.flatnonzero(lexical >= _EQUAL)] = 1.0
        chosen = self._chosen(combined, meaning)
        pairs, _ = names.pairs.of(chosen)
        pairs = pairs[np.argsort(names.pair_group[pairs], kind="stable")]
        groups, texts = names.pair_group[pairs], names.pair_text[pairs]
        firsts = np.flatnonzero(np.diff(groups, prepend=-1))
        scores = np.stack((combined[texts] * names.pair_weight[pairs], lexical[texts], meaning[texts]))
        entries, sizes = self._catalogue.table.members(groups[firsts])
        of_group = np.maximum.reduceat(scores, firsts, axis=1) if len(firsts) else scores
        name, by_letters, by_meaning = np.repeat(of_group, sizes, axis=1)
        own, owned_exactly = self._own(chosen, combined, exact, entries)
        return Retrieved(entries=entries, name=name, own=own, exact=owned_exactly, lexical=by_letters, meaning=by_meaning)

    def _lexical(self, query: Query) -> Scores:
        index = self._catalogue.index
        lexical = np.zeros(len(index.position), np.float32)
        for reading, strength in query.readings.items():
            np.maximum(lexical, np.float32(strength) * index.likeness(reading, self._settings.word_share), out=lexical)
            place = index.position.get(reading)
            if place is not None:
                lexical[place] = max(lexical[place], strength)
        return lexical

    def _chosen(self, combined: Scores, meaning: Scores) -> NDArray[np.int64]:
        """Places of the names that are looked at closely, rising."""
        chosen = np.zeros(len(combined), bool)
        for scores in (combined, meaning):
            chosen[_highest(scores, self._settings.retrieved)] = True
        return np.flatnonzero(chosen)

    def _own(self, chosen: NDArray[np.int64], combined: Scores, exact: list[int], entries: NDArray[np.int32]) -> tuple[Scores, Scores]:
        owners = self._catalogue.names.owners
        own = np.zeros((2, len(self._catalogue.entries)), np.float32)
        bearers, counts = owners.of(chosen)
        np.maximum.at(own[0], bearers, np.repeat(combined[chosen], counts))
        own[1, owners.of(np.array(exact, np.int64))[0]] = 1.0
        return own[0, entries], own[1, entries]


def _highest(scores: Scores, count: int) -> NDArray[np.int64]:
    """Places of so many of the highest scores, at most; in no order. Far below the best none matters."""
    best = scores.max(initial=0)
    # Few stand near the best, and few are soon sorted.
    near = np.flatnonzero(scores >= _NEAR * best)
    if len(near) < count:
        near = np.flatnonzero(scores >= _LOOKED_AT * best)
    return near[np.argpartition(-scores[near], count - 1)[:count]] if len(near) > count else near


def _completed(parsed: ParsedTest, meant: list[str]) -> ParsedTest:
    """What all written-out readings say of specimen, timing and method, where the short form says nothing: GDP is a fasting glucose."""
    said = [split_axes(reading)[0] for reading in meant]
    if not said:
        return parsed

    def common(axis: str) -> frozenset[str]:
        return frozenset(set.intersection(*(found[axis] for found in said)))

    return replace(
        parsed,
        specimens=parsed.specimens or common("specimen"),
        timings=parsed.timings or common("timing"),
        methods=parsed.methods or common("method"),
    )


def _parts(name: str) -> list[str]:
    """Folded parts of a name: what stands outside its parentheses, and in each."""
    inside = _PARENTHESIS.findall(name)
    return [fold(part) for part in (_PARENTHESIS.sub(" ", name), *inside)] if inside else []
