"""What a page tells as `label: value`, as forms, cards and reports do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from inference_server.tasks.documents.values import KeyField, Line, Quad, Word

# A longer label is a sentence.
_MOST_LABEL_CHARACTERS = 40
# Where words are parted by so many heights, a label begins anew.
_GAP_HEIGHTS = 1.5
# A label and its value in one word; hours, ratios and addresses of the web are none.
_GLUED = re.compile(r"^([^\W\d][^:]*:)(?!//)(.+)$")


def key_fields(lines: Iterable[Line]) -> tuple[KeyField, ...]:
    """The pairs of all lines, in reading order. A label is what stands before a colon, its value what follows on the line."""
    return tuple(field for line in lines for field in _fields(line))


def tells_pair(words: Sequence[Word]) -> bool:
    """Whether a row of words has a label, a colon, and a value."""
    parts = [part.text for word in words for part in _parts(word)]
    return any(text.endswith(":") for text in parts[:-1])


def _fields(line: Line) -> Iterator[KeyField]:
    words = [part for word in line.words for part in _parts(word)]
    colons = [index for index, word in enumerate(words) if word.text.endswith(":")]
    if not colons:
        return
    starts = [_label_start(words, 0, colons[0])]
    starts += [_next_label(words, before + 1, colon) for before, colon in pairwise(colons)]
    for start, colon, end in zip(starts, colons, [*starts[1:], len(words)], strict=True):
        label = " ".join(word.text for word in words[start : colon + 1]).rstrip(": ")
        value = words[colon + 1 : end]
        if value and len(label) <= _MOST_LABEL_CHARACTERS and any(map(str.isalpha, label)):
            yield _field(label, value)


def _parts(word: Word) -> list[Word]:
    """A word, or its label and its value where no space was read between them."""
    if word.text.startswith(":") and len(word.text) > 1:
        return [_cut(word, 0, 1), _cut(word, 1, len(word.text))]
    found = _GLUED.match(word.text)
    return [_cut(word, 0, found.end(1)), _cut(word, found.end(1), len(word.text))] if found else [word]


def _cut(word: Word, start: int, end: int) -> Word:
    """Some characters of a word, as if all were equally wide."""
    left, right = start / len(word.text), end / len(word.text)
    top_left, top_right, bottom_right, bottom_left = word.polygon
    top, bottom = top_right - top_left, bottom_right - bottom_left
    corners = [top_left + left * top, top_left + right * top, bottom_left + right * bottom, bottom_left + left * bottom]
    return Word(text=word.text[start:end], confidence=word.confidence, polygon=np.stack(corners).astype(np.float32))


def _label_start(words: Sequence[Word], start: int, colon: int) -> int:
    """Behind the last wide gap before a colon."""
    wide = [
        index
        for index in range(start + 1, colon + 1)
        if _gap(words, index) > _GAP_HEIGHTS * _height(words[index]) and words[index].text != ":"
    ]
    return wide[-1] if wide else start


def _next_label(words: Sequence[Word], start: int, colon: int) -> int:
    """Where the value of one pair ends and the label of the next begins: at the widest gap between."""
    between = range(start + 1, colon + (words[colon].text != ":"))
    return max(between, key=lambda index: _gap(words, index), default=min(start, colon))


def _gap(words: Sequence[Word], index: int) -> float:
    before, after = words[index - 1].polygon, words[index].polygon
    return float(np.hypot(*(after[[0, 3]].mean(axis=0) - before[[1, 2]].mean(axis=0))))


def _height(word: Word) -> float:
    return float(np.hypot(*(word.polygon[3] - word.polygon[0])))


def _field(label: str, value: Sequence[Word]) -> KeyField:
    lengths = [len(word.text) for word in value]
    first, last = value[0].polygon, value[-1].polygon
    quad: Quad = np.stack([first[0], last[1], last[2], first[3]])
    return KeyField(
        label=label,
        value=" ".join(word.text for word in value),
        confidence=float(np.average([word.confidence for word in value], weights=lengths)),
        polygon=quad,
    )
