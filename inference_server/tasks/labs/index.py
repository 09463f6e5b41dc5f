"""Finds names by their words and by their letters: two cosine indexes over TF-IDF vectors, in numpy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

Scores = NDArray[np.float32]
# Least likeness of two spellings of one word, 0 to 100, and the shortest word that is compared.
_LEAST_LIKENESS = 80
_SHORTEST_FUZZY = 4


class CosineIndex:
    """Cosine similarity of a bag of features with every text."""

    def __init__(self, bags: Iterable[Iterable[str]]) -> None:
        """`bags`: the features of each text."""
        numbers: dict[str, int] = {}
        features: list[int] = []
        texts: list[int] = []
        count = 0
        for text, bag in enumerate(bags):
            count = text + 1
            for feature in set(bag):
                features.append(numbers.setdefault(feature, len(numbers)))
                texts.append(text)
        self._numbers = numbers
        self._build(np.array(features, np.int32), np.array(texts, np.int32), count)

    def _build(self, features: NDArray[np.int32], texts: NDArray[np.int32], count: int) -> None:
        frequency = np.bincount(features, minlength=len(self._numbers))
        self._weight = np.log1p(count / np.maximum(frequency, 1)).astype(np.float32)
        order = np.argsort(features, kind="stable")
        self._postings = texts[order]
        self._starts = np.concatenate(([0], np.cumsum(frequency))).tolist()
        squares = np.bincount(texts, weights=self._weight[features] ** 2, minlength=count)
        self._inverse_norm = (1 / np.sqrt(np.maximum(squares, 1e-9))).astype(np.float32)
        self._unknown_weight = float(np.log1p(count)) if count else 1.0

    @property
    def features(self) -> Mapping[str, int]:
        """Every feature and its number."""
        return self._numbers

    def scores(self, bag: Mapping[str, float], *, unknown: int = 0) -> Scores:
        """Cosine with every text. `bag`: features and their strength, 0 to 1; `unknown`: features that no text has."""
        count = len(self._inverse_norm)
        square = unknown * self._unknown_weight**2
        postings, lengths, weights = [], [], []
        for feature, strength in bag.items():
            number = self._numbers.get(feature)
            if number is None:
                square += self._unknown_weight**2
                continue
            weight = float(self._weight[number])
            square += weight**2
            postings.append(self._postings[self._starts[number] : self._starts[number + 1]])
            lengths.append(len(postings[-1]))
            weights.append(strength * weight**2)
        if not postings:
            return np.zeros(count, np.float32)
        # One pass over all postings: adding them feature by feature takes three times as long.
        sums = np.bincount(np.concatenate(postings), np.repeat(weights, lengths), count)
        return np.asarray((sums * (1 / max(square, 1e-9) ** 0.5)).astype(np.float32) * self._inverse_norm)


class NameIndex:
    """Likeness of a folded text to every name, by words (spelling mistakes forgiven) and by letters."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts`: folded names."""
        self.words = CosineIndex(text.split() for text in texts)
        self._letters = CosineIndex(_trigrams(text) for text in texts)
        self.position = {text: number for number, text in enumerate(texts)}
        self._vocabulary = [word for word in self.words.features if len(word) >= _SHORTEST_FUZZY and not word.isdigit()]
        self.nearest_words = lru_cache(maxsize=20_000)(self._nearest_words)

    def likeness(self, text: str, word_share: float) -> Scores:
        """Weighted mean of the cosine by words and the cosine by letters."""
        bag: dict[str, float] = {}
        unknown = 0
        for word in text.split():
            near = self.nearest_words(word)
            unknown += not near
            for spelling, strength in near:
                bag[spelling] = max(strength, bag.get(spelling, 0.0))
        trigrams = Counter(_trigrams(text))
        return word_share * self.words.scores(bag, unknown=unknown) + (1 - word_share) * self._letters.scores(dict.fromkeys(trigrams, 1.0))

    def joined(self, text: str) -> str:
        """The text with neighbours joined where that makes a known word: "triiodothy ronine", "hb a1c"; empty when none does."""
        words = re.sub(r"\b(?:[a-z] )+[a-z]\b", lambda match: match.group().replace(" ", ""), text).split()
        result: list[str] = []
        while words:
            word = words.pop(0)
            if words and word + words[0] in self.words.features:
                word += words.pop(0)
            result.append(word)
        joined = " ".join(result)
        return joined if joined != text else ""

    def _nearest_words(self, word: str) -> tuple[tuple[str, float], ...]:
        """Spellings in use that a word may stand for, with their likeness; the word itself when it is in use."""
        if word in self.words.features:
            return ((word, 1.0),)
        if len(word) < _SHORTEST_FUZZY or word.isdigit():
            return ()
        found = process.extract(word, self._vocabulary, scorer=fuzz.ratio, score_cutoff=_LEAST_LIKENESS, limit=1)
        return tuple((spelling, score / 100) for spelling, score, _ in found)


def _trigrams(text: str) -> list[str]:
    padded = f" {text} "
    return [padded[start : start + 3] for start in range(len(padded) - 2)]
