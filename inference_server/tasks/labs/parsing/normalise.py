"""Reads one printed test: what is measured, in which specimen, when, how, and what the unit and value say of the result."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from inference_server.tasks.labs.parsing.units import properties_of
from inference_server.tasks.labs.parsing.vocabulary import (
    FILLERS,
    HINTED_PROPERTIES,
    MEDICINE_WORDS,
    METHODS,
    PROPERTY_WORDS,
    RESULT_WORDS,
    SPECIMENS,
    TIMINGS,
)

_GREEK = str.maketrans({"α": " alpha ", "β": " beta ", "γ": " gamma ", "δ": " delta ", "κ": " kappa ", "λ": " lambda ", "µ": "u", "μ": "u"})
_DOSE = re.compile(r"\b\d+(?:[.,]\d+)?\s*(?:mg|mcg)\b(?!\s*/)", re.IGNORECASE)
_NUMBER = re.compile(r"[<>≤≥=~]*\s*[-+]?\d+(?:[.,]\d+)*(?:\s*[eE^x*]\s*\d+)?\s*%?(?:\s*-\s*\d+(?:[.,]\d+)*)?")
_TITRE = re.compile(r"(?:1\s*[:/]\s*\d+)|(?:<\s*1\s*[:/]\s*\d+)")
_TABLES: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("specimen", SPECIMENS),
    ("timing", TIMINGS),
    ("method", METHODS),
    ("property", PROPERTY_WORDS),
)
_LONGEST_PHRASE = max(len(phrase.split()) for _, table in _TABLES for phrase in table)
# One-letter and doubtful marks count only where a longer word stands beside them: the f of "f t4" is not "fasting".
# Words that catalogues shorten and reports write out; the order of words does not count.
_SHORTER = {"antigen": "ag", "antibody": "ab", "antibodie": "ab", "antibodi": "ab", "anti": "ab", "antibod": "ab"}
_LEADING = {"s": "serum", "sr": "serum", "u": "urine", "p": "plasma", "b": "blood"}
_DOUBTFUL = frozenset(
    {
        "f",
        "ur",
        "bl",
        "pp",
        "am",
        "pm",
        "hs",
        "abs",
        "auto",
        "qn",
        "ql",
        "ict",
        "fast",
        "gram",
        "time",
        "ratio",
        "stone",
        "culture",
        "rapid",
    }
)


@dataclass(frozen=True, kw_only=True)
class PrintedTest:
    """A test as a laboratory printed it; all but the name may be empty."""

    name: str
    value: str = ""
    unit: str = ""
    specimen: str = ""
    reference_range: str = ""
    # Heading of the report that it stands under, such as Hematology.
    heading: str = ""
    # Of the person: male, female or empty; in years, None when it is not known.
    sex: str = ""
    age: float | None = None


@dataclass(frozen=True, kw_only=True)
class ParsedTest:
    """What a printed test says."""

    # The whole name, folded.
    text: str
    # Folded words of the analyte alone; the whole name's where nothing else would be left.
    analyte: str
    # Keys of `vocabulary.SPECIMENS`' meanings; empty when nothing is said.
    specimens: frozenset[str]
    # Meanings of `vocabulary.TIMINGS`.
    timings: frozenset[str]
    # Parts of LOINC methods in lower case.
    methods: frozenset[str]
    # LOINC properties that unit and value fit; empty when they say nothing.
    properties: frozenset[str]
    # LOINC properties that words of the name hint at.
    hinted: frozenset[str]
    # Qn, Ord, Nom or empty, as the value says.
    scale: str
    # Whether it is a dose of a medicine rather than a test.
    is_dose: bool


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Lower case, no accents or punctuation, one spelling of British and American words, no plural of longer words.

    Applied to queries and catalogue alike, so that its oddities cancel out.
    """
    text = text.translate(_GREEK).replace("%", " percent ").replace("#", " number ")
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"\b(?:[a-z]\.){2,}[a-z]?\b\.?", lambda match: match.group().replace(".", ""), text)
    text = re.sub(r"(?<=\d)[.,](?=\d)", "p", text)
    return " ".join(map(_fold_word, re.findall(r"[a-z0-9]+", text)))


@lru_cache(maxsize=4096)
def _fold_word(word: str) -> str:
    if len(word) < 5 or word.isdigit():
        return _SHORTER.get(word, word)
    word = word.replace("ae", "e").replace("oe", "e").replace("leuco", "leuko").replace("sulph", "sulf").replace("tumour", "tumor")
    word = word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
    return _SHORTER.get(word, word)


_FOLDED_TABLES = tuple((axis, {fold(phrase): meaning for phrase, meaning in table.items()}) for axis, table in _TABLES)
_FOLDED_FILLERS = frozenset(fold(word) for word in FILLERS)
_FOLDED_MEDICINES = frozenset(fold(word) for word in MEDICINE_WORDS)
_FOLDED_RESULTS = frozenset(fold(word) for word in RESULT_WORDS)


def parse(test: PrintedTest) -> ParsedTest:
    """Read a printed test. Never fails: what is not understood stays part of the name."""
    text = fold(test.name)
    found, rest = split_axes(text)
    specimen_found, _ = split_axes(fold(test.specimen))
    # What the specimen field says overrules the name.
    specimens = specimen_found["specimen"] or found["specimen"]
    hinted = frozenset().union(*(HINTED_PROPERTIES[hint] for hint in found["property"]))
    scale, value_properties = _read_value(test.value)
    return ParsedTest(
        text=text,
        analyte=rest or text,
        specimens=frozenset(specimens),
        timings=frozenset(found["timing"] | specimen_found["timing"]),
        methods=frozenset(found["method"]),
        properties=properties_of(test.unit) or value_properties,
        hinted=hinted,
        scale=scale or ("Qn" if properties_of(test.unit) else ""),
        is_dose=bool(_DOSE.search(test.name)) or any(word in _FOLDED_MEDICINES for word in text.split()),
    )


@lru_cache(maxsize=4096)
def split_axes(text: str) -> tuple[dict[str, set[str]], str]:
    """Part a folded name into what it says of specimen, timing, method and property, and the analyte's words that are left."""
    words = text.split()
    found: dict[str, set[str]] = {axis: set() for axis, _ in _TABLES}
    rest: list[str] = []
    start = 0
    # A letter before the name marks the specimen: "S. calcium".
    if len(words) > 1 and words[0] in _LEADING and len(words[1]) > 3:
        found["specimen"].add(_LEADING[words[0]])
        start = 1
    while start < len(words):
        taken = _phrase_at(words, start, found)
        if not taken:
            if words[start] not in _FOLDED_FILLERS:
                rest.append(words[start])
            taken = 1
        start += taken
    return found, " ".join(rest)


def _phrase_at(words: list[str], start: int, found: dict[str, set[str]]) -> int:
    for length in range(min(_LONGEST_PHRASE, len(words) - start), 0, -1):
        phrase = " ".join(words[start : start + length])
        if phrase in _DOUBTFUL and len(words) < 3:
            continue
        for axis, table in _FOLDED_TABLES:
            if phrase in table:
                found[axis].add(table[phrase])
                return length
    return 0


def _read_value(value: str) -> tuple[str, frozenset[str]]:
    value = value.strip()
    if not value:
        return "", frozenset()
    if _TITRE.fullmatch(value):
        return "", frozenset({"Titr"})
    if _NUMBER.fullmatch(value):
        return "Qn", frozenset()
    if set(value) <= set("+- ()1234/") or set(fold(value).split()) & _FOLDED_RESULTS:
        return "Ord", frozenset()
    return "Nom", frozenset()


class Abbreviations:
    """Short forms and what they stand for."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """`pairs`: short, long; several long forms of one short form are all tried."""
        self._long: dict[str, list[str]] = {}
        for short, long in pairs:
            folded_short, folded_long = fold(short), fold(long)
            if folded_short and folded_long and folded_short != folded_long and folded_long not in self._long.setdefault(folded_short, []):
                self._long[folded_short].append(folded_long)
        self._longest = max((len(short.split()) for short in self._long), default=1)

    def expand(self, text: str, *, most: int = 3) -> list[str]:
        """Up to `most` readings of a folded text with its short forms written out; empty when it has none."""
        words = text.split()
        readings: list[list[str]] = [[]]
        expanded = False
        start = 0
        while start < len(words):
            length, longs = self._at(words, start)
            expanded = expanded or bool(longs)
            choices = longs or [words[start]]
            readings = [[*reading, choice] for reading in readings for choice in choices][:most]
            start += length
        return [" ".join(reading) for reading in readings] if expanded else []

    def _at(self, words: list[str], start: int) -> tuple[int, list[str]]:
        for length in range(min(self._longest, len(words) - start), 0, -1):
            longs = self._long.get(" ".join(words[start : start + length]))
            if longs:
                return length, longs
        return 1, []
