"""Finds reviewed names like a printed one: by their words in any order, their letters and their meaning."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from inference_server.tasks.labs.catalogue.index import CosineIndex
from inference_server.tasks.labs.embed import Vectors
from inference_server.tasks.labs.matching.aliases import Alias, digits
from inference_server.tasks.labs.matching.retrieve import Query
from inference_server.tasks.labs.parsing.normalise import split_axes
from inference_server.tasks.labs.parsing.units import fold_unit

# Specimens that routine names tell or not, as they like.
_USUAL = frozenset({"serum", "plasma", "blood", "serum or plasma", "whole blood"})
_LEAST_LIKENESS = 0.5
# Names that are compared letter by letter, and those that are told.
_COMPARED = 40
_TOLD = 10
# A name that has another known word in the place of one ("HDL" for "LDL"), or another number, is hardly the same.
_OTHER_WORD = 0.3
_OTHER_NUMBER = 0.3


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """A reviewed name like the printed one."""

    alias: Alias
    # 0 to 1; 1 when the same words tell the same.
    likeness: float
    # How far it may speak, 0 to 1: less where a word or number differs.
    trust: float


class Recall:
    """The reviewed names of one moment. Safe to use from several threads."""

    def __init__(self, aliases: Sequence[Alias], queries: Sequence[Query], vectors: Vectors | None, vocabulary: Collection[str]) -> None:
        """`queries`: the aliases, read as tests; `vectors`: their meanings, where they are known; `vocabulary`: the catalogue's words."""
        self._aliases = tuple(aliases)
        self._texts = [telling(query) for query in queries]
        self._words = CosineIndex(text.split() for text in self._texts)
        self._vectors = vectors
        self._vocabulary = vocabulary
        self._numbers = [digits(query.parsed.text) for query in queries]
        self._units = [fold_unit(alias.unit) for alias in aliases]

    def __len__(self) -> int:
        return len(self._aliases)

    def near(self, query: Query, meaning: NDArray[np.float32]) -> list[Recalled]:
        """The reviewed names that are most like a query, which is the embedded `meaning` too; those for another unit are left out."""
        if not self._aliases:
            return []
        text, unit = telling(query), fold_unit(query.test.unit)
        words = text.split()
        alike = self._words.scores(dict.fromkeys(words, 1.0))
        by_meaning = self._vectors @ meaning if self._vectors is not None and meaning.any() else None
        coarse = alike if by_meaning is None else alike + by_meaning
        chosen = np.argpartition(-coarse, _COMPARED)[:_COMPARED] if len(coarse) > _COMPARED else np.arange(len(coarse))
        letters = process.cdist([text], [self._texts[place] for place in chosen], scorer=fuzz.ratio, dtype=np.float32)[0] / 100
        likeness = (coarse[chosen] + letters) / (2 if by_meaning is None else 3)
        found = []
        for number in np.argsort(-likeness, kind="stable")[:_TOLD]:
            place = int(chosen[number])
            if likeness[number] >= _LEAST_LIKENESS and self._units[place] in ("", unit):
                trust = self._trust(set(words), digits(query.parsed.text), place)
                found.append(Recalled(alias=self._aliases[place], likeness=min(float(likeness[number]), 1.0), trust=trust))
        return found

    def _trust(self, words: set[str], numbers: str, place: int) -> float:
        known = set(self._texts[place].split())
        swapped = any(word in self._vocabulary for word in words - known) and any(word in self._vocabulary for word in known - words)
        return (_OTHER_WORD if swapped else 1.0) * (_OTHER_NUMBER if numbers != self._numbers[place] else 1.0)


def telling(query: Query) -> str:
    """What tells a name from others: the words of its meaning and what it says of the axes, sorted."""
    said = split_axes(query.parsed.text)[0]
    marks = sorted([*(said["specimen"] - _USUAL), *said["timing"], *said["method"], *said["property"]])
    text = " ".join(sorted(set(query.meaning.split())))
    return f"{text} | {' '.join(marks)}" if marks else text
