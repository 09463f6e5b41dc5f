"""Letters that were misread within words: what the recogniser also thought of, and how usual words are, tell what stands there.

A word that no list has is either strange or misread. It is taken for a known word when the recogniser thought of each of its letters and
the odds say so: how likely these are beside those that were read, times how usual the word is, over how likely a strange word of that
length is (Kernighan, Church and Gale, "A spelling correction program based on a noisy channel model", COLING 1990).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inference_server.errors import ConfigurationError
from inference_server.tasks.documents.recognition.recogniser import SURE, Character

# What is read instead may be so much less likely than what was read, for all letters of a word; natural logarithm.
_LEAST_RATIO = -6.0
# At least this share of words is strange on any page, and the logarithm by which each of their letters makes them less likely.
_LEAST_STRANGE = 0.05
_STRANGE_LETTER = -2.0
# Nothing shorter is a word; two letters are mended only in words that are as long as the second.
_SHORTEST, _SHORTEST_OF_TWO = 2, 6
# Of so many likeliest letters two are tried together: in words that are hardly legible there are hundreds.
_MOST_OF_TWO = 16
# Words that were read as one are so long, each of them so, and the logarithm of their odds is higher: compounds are made of words too.
_SHORTEST_OF_ROW, _SHORTEST_IN_ROW, _ODDS_OF_ROW = 6, 3, 6.0
# Two words, however short, are parted where a space between them was as likely as this, if their odds with it are higher: lower than those
# of a row, as the recogniser hardly thinks of one within a word.
_SPACE_IN_PAIR, _ODDS_OF_PAIR = 0.03, -3.0
# A known word is taken for another where the logarithm of the odds is more than this.
_ODDS_OF_KNOWN = 4.0
# So much of a word is letters, the rest digits that were read for letters, and a number of so many characters so many letters for digits.
LETTERS_OF_WORD = 0.5
_NUMBER_LENGTH, _LETTERS_OF_NUMBER = 4, 0.25
# Fewer words, and shorter ones, do not tell how strange a page's are.
_TELLING_WORDS, _TELLING_LETTERS = 20, 3
_TOKEN = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Words that are known."""

    # By word in lower case: the logarithm of its share of all words.
    likelihood: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> Lexicon:
        """A file of a word and its count a line; without the file no word is known. Raises `ConfigurationError` where it is damaged."""
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            return cls(likelihood={})
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{path} cannot be read ({type(error).__name__}); expected UTF-8, a word and its count a line."
            ) from error
        counts: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            word, _, count = line.rpartition(" ")
            if not (word.isalpha() and count.isdecimal() and int(count)):
                raise ConfigurationError(
                    f"{path}, line {number}: is {line[:40]!r}; expected a word of letters, a space and a count from 1 on."
                )
            counts[word.lower()] = int(count)
        total = math.log(sum(counts.values())) if counts else 0.0
        return cls(likelihood={word: math.log(count) - total for word, count in counts.items()})


class Speller:
    """Mends the words of one page."""

    def __init__(self, lexicon: Lexicon, lines: Iterable[Sequence[Character]]) -> None:
        """`lines`: all of the page, which tell how many of its words are strange, such as those of a language that the lexicon lacks."""
        self._likelihood = lexicon.likelihood
        words = [token for line in lines for token, characters in _tokens(line) if _is_sure_word(token, characters)]
        strange = sum(word.lower() not in self._likelihood for word in words)
        self._strange = math.log(max(_LEAST_STRANGE, strange / len(words) if len(words) >= _TELLING_WORDS else 0.0))

    def knows(self, word: str) -> bool:
        """Whether it is a known word."""
        return word.lower() in self._likelihood

    def is_strange(self, word: str) -> bool:
        """Whether it is none; of no word where none is known."""
        return bool(self._likelihood) and not self.knows(word)

    def mended(self, characters: Sequence[Character]) -> list[Character]:
        """The characters of a word, in their order, its letters replaced or left out where that is what stands there."""
        if not any(character.others for character in characters):
            return list(characters)
        mended: list[Character] = []
        for token, some in _tokens(characters, with_marks=True):
            whole = self._mended_token(token, some)
            mended += whole if whole is not some else [each for part in _tokens(some) for each in self._mended_token(*part)]
        return mended

    def is_one(self, before: Sequence[Character], after: Sequence[Character]) -> bool:
        """Whether a space parts a known word in two, of which one is none."""
        if not (before and after and before[-1].text.isalpha() and after[0].text.isalpha()):
            return False
        first, second = ([token for token, _ in _tokens(characters)] for characters in (before, after))
        if not (first[-1].isalpha() and second[0].isalpha()):
            return False
        parts = (first[-1].lower(), second[0].lower())
        is_long = len("".join(parts)) >= _SHORTEST_OF_ROW and min(map(len, parts)) >= _SHORTEST
        return is_long and "".join(parts) in self._likelihood and not all(part in self._likelihood for part in parts)

    def parted(self, characters: Sequence[Character], may_part: Sequence[bool]) -> list[int]:
        """Behind which characters of a word, counted from 1, another begins; empty where it is no row of known words.

        `may_part`: for each character whether a space may follow it.
        """
        if len(characters) < _SHORTEST_OF_ROW or not any(may_part):
            return []
        breaks: list[int] = []
        done = 0
        for token, some in _tokens(characters):
            if len(token) >= _SHORTEST_OF_ROW and token.isascii() and token.isalpha() and token.lower() not in self._likelihood:
                allowed = may_part[done : done + len(some)]
                ends = self._row_of_words(token.lower(), allowed) or self._pair_of_words(token.lower(), some)
                breaks += [done + index for index in ends]
            done += len(some)
        return breaks

    def _row_of_words(self, token: str, may_part: Sequence[bool]) -> Sequence[int]:
        """Where the likeliest row of known words that makes up a token is parted."""
        # By its end: how likely the likeliest row up to there is, and where its words end.
        rows: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for end in [index for index in range(_SHORTEST_IN_ROW, len(token) + 1) if index == len(token) or may_part[index - 1]]:
            words = [(start, self._likelihood.get(token[start:end])) for start in rows if end - start >= _SHORTEST_IN_ROW]
            ways = [(rows[start][0] + likelihood, (*rows[start][1], end)) for start, likelihood in words if likelihood is not None]
            if ways:
                rows[end] = max(ways)
        likelihood, ends = rows.get(len(token), (-math.inf, ()))
        return ends[:-1] if likelihood > self._strange + _STRANGE_LETTER * len(token) + _ODDS_OF_ROW else ()

    def _pair_of_words(self, token: str, characters: Sequence[Character]) -> Sequence[int]:
        """Where two known words are parted between which the recogniser thought of a space, though there is hardly any."""
        ways = [
            (self._likelihood[token[:end]] + self._likelihood[token[end:]] + math.log(characters[end - 1].space_after), end)
            for end in range(_SHORTEST, len(token) - _SHORTEST + 1)
            if characters[end - 1].space_after >= _SPACE_IN_PAIR and token[:end] in self._likelihood and token[end:] in self._likelihood
        ]
        likelihood, end = max(ways, default=(-math.inf, 0))
        return (end,) if likelihood > self._strange + _STRANGE_LETTER * len(token) + _ODDS_OF_PAIR else ()

    def _mended_token(self, token: str, characters: Sequence[Character]) -> Sequence[Character]:
        letters = sum(map(str.isalpha, token))
        is_foreign = any(not character.text.isascii() and not character.others for character in characters)
        if is_foreign or not letters or not any(character.others for character in characters):
            return characters
        if len(token) >= _NUMBER_LENGTH and letters <= max(1, _LETTERS_OF_NUMBER * len(token)):
            return _mended_number(characters)
        if len(token) < _SHORTEST or letters < LETTERS_OF_WORD * len(token):
            return characters
        return self._likeliest(characters)

    def _likeliest(self, characters: Sequence[Character]) -> Sequence[Character]:
        """The known word that most likely stands there, or what was read."""
        letters = [character.text.lower() for character in characters]
        known = self._likelihood.get("".join(letters))
        best, best_odds = None, self._strange + _STRANGE_LETTER * len(letters) if known is None else known + _ODDS_OF_KNOWN
        for changes in _changes(characters):
            ratio = sum(change.ratio for change in changes)
            if ratio < _LEAST_RATIO:
                continue
            spelled = letters.copy()
            for change in changes:
                spelled[change.index] = change.text
            likelihood = self._likelihood.get("".join(spelled), -math.inf)
            if ratio + likelihood > best_odds and sum(map(bool, spelled)) >= _SHORTEST:
                best, best_odds = changes, ratio + likelihood
        if best is None:
            return characters
        return _changed(characters, {change.index: change for change in best})


@dataclass(frozen=True, kw_only=True)
class _Change:
    """Another character at one place, or none."""

    index: int
    # In lower case.
    text: str
    # The logarithm of how likely it is beside what was read.
    ratio: float
    likelihood: float


def _tokens(characters: Sequence[Character], *, with_marks: bool = False) -> Iterator[tuple[str, Sequence[Character]]]:
    """Runs of letters and digits, and what stands between them, with their characters.

    `with_marks`: a mark between two of them that may be a letter is a digit in a run, so that no word is known with it.
    """
    texts = [character.text for character in characters]
    if with_marks:
        for index in range(1, len(characters) - 1):
            if _may_be_letter(characters[index]) and characters[index - 1].text.isalnum() and characters[index + 1].text.isalnum():
                texts[index] = "0"
    # What the recogniser answers for one step may be several characters of text.
    starts = list(itertools.accumulate(map(len, texts), initial=0))
    text = "".join(texts)
    at = {start: index for index, start in enumerate(starts)}
    done = 0
    for match in _TOKEN.finditer(text):
        first, last = at.get(match.start()), at.get(match.end())
        if first is None or last is None or last - first != len(match.group()):
            continue
        if first > done:
            yield "", characters[done:first]
        yield match.group(), characters[first:last]
        done = last
    if done < len(characters):
        yield "", characters[done:]


def _may_be_letter(character: Character) -> bool:
    return not character.text.isalnum() and any(text.isalpha() for text, _ in character.others)


def _is_sure_word(token: str, characters: Sequence[Character]) -> bool:
    return len(token) >= _TELLING_LETTERS and token.isalpha() and all(character.confidence >= SURE for character in characters)


def _changes(characters: Sequence[Character]) -> Iterator[tuple[_Change, ...]]:
    """One change, and in longer words two at different places."""
    single = [
        _Change(index=index, text=text, ratio=math.log(likelihood / max(character.confidence, 1e-6)), likelihood=likelihood)
        for index, character in enumerate(characters)
        for text, likelihood in _in_lower_case(character.others).items()
        # A mark is a letter that lost ink, or a mark.
        if text or character.text.isalnum()
    ]
    yield from ((change,) for change in single)
    if len(characters) >= _SHORTEST_OF_TWO:
        likely = sorted(single, key=lambda change: -change.ratio)[:_MOST_OF_TWO]
        yield from ((first, second) for first, second in itertools.combinations(likely, 2) if first.index != second.index)


def _in_lower_case(others: Sequence[tuple[str, float]]) -> dict[str, float]:
    """What else may stand there, and how likely in either case."""
    likelihood: dict[str, float] = {}
    for text, share in others:
        likelihood[text.lower()] = likelihood.get(text.lower(), 0.0) + share
    return likelihood


def _changed(characters: Sequence[Character], changes: Mapping[int, _Change]) -> list[Character]:
    """The characters with changes made: in the case of the letters that stay, but for the first, whose case is as it was thought of."""
    kept = "".join(character.text for index, character in enumerate(characters) if index and index not in changes)
    is_upper = sum(map(str.isupper, kept)) * 2 > sum(map(str.isalpha, kept))
    changed: list[Character] = []
    for index, character in enumerate(characters):
        if index not in changes:
            changed.append(character)
        elif new := changes[index].text:
            thought = max((share, text) for text, share in character.others if text.lower() == new)[1]
            new = new.upper() if is_upper else new if index and kept else thought
            changed.append(replace(character, text=new, confidence=changes[index].likelihood, others=()))
    return changed


def _mended_number(characters: Sequence[Character]) -> list[Character]:
    """Letters between two digits become the digit that the recogniser thought of."""
    mended = list(characters)
    for index in range(1, len(characters) - 1):
        character = characters[index]
        digits = [(likelihood, text) for text, likelihood in character.others if text.isdecimal()]
        if digits and character.text.isalpha() and mended[index - 1].text.isdecimal() and characters[index + 1].text.isdecimal():
            likelihood, digit = max(digits)
            mended[index] = replace(character, text=digit, confidence=likelihood, others=())
    return mended
