"""Finds names by their words and by their letters: two cosine indexes over TF-IDF vectors, in numpy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

Scores = NDArray[np.float32]
# Least likeness of two spellings of one word, 0 to 100, and the shortest word that is compared.
_LEAST_LIKENESS = 80
_SHORTEST_FUZZY = 4


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What a bag of features has in common with texts, feature by feature."""

    # Of each feature, the texts that have it, and what it adds to their cosine but for `scale`.
    texts: list[NDArray[np.int32]]
    worths: list[NDArray[np.float32]]
    scale: float


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
        weight = np.log1p(count / np.maximum(frequency, 1)).astype(np.float32)
        order = np.argsort(features, kind="stable")
        self._postings = texts[order]
        self._starts = np.concatenate(([0], np.cumsum(frequency))).tolist()
        squares = weight**2
        lengths = np.sqrt(np.maximum(np.bincount(texts, weights=squares[features], minlength=count), 1e-9))
        # What each posting adds to the cosine, but for the length of what is looked up.
        self._worths = (squares[features] / lengths[texts])[order].astype(np.float32)
        self._squares = squares.tolist()
        self._unknown_square = float(np.log1p(count)) ** 2 if count else 1.0
        self._count = count

    @property
    def features(self) -> Mapping[str, int]:
        """Every feature and its number."""
        return self._numbers

    def scores(self, bag: Mapping[str, float]) -> Scores:
        """Cosine with every text. `bag`: features and their strength, 0 to 1."""
        return self.summed([(self.shares(bag), 1.0)])

    def shares(self, bag: Mapping[str, float], *, unknown: int = 0) -> Shares:
        """What a bag has in common with texts. `unknown`: features that no text has."""
        square = unknown * self._unknown_square
        texts, worths = [], []
        for feature, strength in bag.items():
            number = self._numbers.get(feature)
            if number is None:
                square += self._unknown_square
                continue
            square += self._squares[number]
            start, end = self._starts[number], self._starts[number + 1]
            texts.append(self._postings[start:end])
            worths.append(self._worths[start:end] if strength == 1 else self._worths[start:end] * np.float32(strength))
        return Shares(texts=texts, worths=worths, scale=1 / max(square, 1e-9) ** 0.5)

    def summed(self, parts: Sequence[tuple[Shares, float]]) -> Scores:
        """Weighted sum of cosines with the same texts, of each text; each part comes with its weight."""
        sums = np.zeros(self._count, np.float32)
        texts = [each for shares, _ in parts for each in shares.texts]
        if texts:
            worths = [np.concatenate(shares.worths) * np.float32(weight * shares.scale) for shares, weight in parts if shares.worths]
            # One pass over all postings: adding them feature by feature takes three times as long.
            np.add.at(sums, np.concatenate(texts), np.concatenate(worths))
        return sums


class NameIndex:
    """Likeness of a folded text to every name, by words (spelling mistakes forgiven) and by letters."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts`: folded names."""
        self.words = CosineIndex(text.split() for text in texts)
        self._letters = CosineIndex(_trigrams(text) for text in texts)
        self.position = {text: number for number, text in enumerate(texts)}
        self._vocabulary = [word for word in self.words.features if len(word) >= _SHORTEST_FUZZY and not word.isdigit()]
        self._lengths = np.array([len(word) for word in self._vocabulary], np.int32)
        self._characters = np.array([_characters(word) for word in self._vocabulary], np.uint64)
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
        by_letters = self._letters.shares(dict.fromkeys(_trigrams(text), 1.0))
        return self.words.summed([(by_letters, 1 - word_share), (self.words.shares(bag, unknown=unknown), word_share)])

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
        found = process.extractOne(word, self._possible(word), scorer=fuzz.ratio, score_cutoff=_LEAST_LIKENESS)
        return ((found[0], found[1] / 100),) if found else ()

    def _possible(self, word: str) -> list[str]:
        """Words in use without those that have too few characters in common with this one: comparing them all takes ten times as long."""
        characters = np.uint64(_characters(word))
        kept = len(word) - np.bitwise_count(characters & ~self._characters).astype(np.int32)
        shared = np.minimum(kept, self._lengths - np.bitwise_count(self._characters & ~characters))
        return [self._vocabulary[place] for place in np.flatnonzero(200 * shared >= _LEAST_LIKENESS * (len(word) + self._lengths))]


def _trigrams(text: str) -> list[str]:
    padded = f" {text} "
    return [padded[start : start + 3] for start in range(len(padded) - 2)]


def _characters(word: str) -> int:
    """One bit for each character of the folded alphabet that a word has."""
    bits = 0
    for character in word:
        bits |= 1 << (ord(character) % 37)
    return bits
