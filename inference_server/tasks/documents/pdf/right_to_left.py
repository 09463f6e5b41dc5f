"""Text that is written from the right, as in Arabic and Hebrew: in the order in which it is read each word lies left of the one before.

In a mirror such a page is a page as any other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

import numpy as np

from inference_server.tasks.documents.values import Line, Quad

T = TypeVar("T")

# Of the bidirectional algorithm (Unicode Standard Annex 9): letters that run from the right, and from the left.
_FROM_RIGHT, _FROM_LEFT = frozenset({"R", "AL"}), "L"
# No corner changes its meaning: what was the left one is the left one in the mirror.
_CORNERS = [1, 0, 3, 2]


def letters_from_right(text: str) -> int:
    """How many more letters of a text run from the right than from the left."""
    kinds = [unicodedata.bidirectional(one) for one in text]
    return sum(kind in _FROM_RIGHT for kind in kinds) - kinds.count(_FROM_LEFT)


def in_order_from_right(words: Sequence[T], text: Callable[[T], str]) -> list[T]:
    """Words that lie side by side, from left to right, in the order of a line from the right: names of several words run from the left."""
    found: list[T] = []
    for is_from_left, group in groupby(reversed(words), lambda one: letters_from_right(text(one)) < 0):
        together = list(group)
        found += together[::-1] if is_from_left else together
    return found


def mirrored(quad: Quad, width: int) -> Quad:
    """A quad of a page of `width` pixels in the mirror, or back."""
    return (quad * (-1, 1) + (width, 0)).astype(np.float32)[_CORNERS]


def line_back(line: Line, width: int) -> Line:
    """A line in the mirror, on the page; one that is written from the left, as in a table of such names, is read from there."""
    words = [replace(word, polygon=mirrored(word.polygon, width)) for word in line.words]
    if letters_from_right(line.text) < 0:
        words.sort(key=lambda word: float(word.polygon[:, 0].mean()))
    text = " ".join(word.text for word in words)
    return replace(line, text=text, polygon=mirrored(line.polygon, width), words=tuple(words))
