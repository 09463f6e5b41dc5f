"""Where invisible words lie: the box of each word is filled by its characters, whatever its angle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.pdf.glyphless import ADVANCE, codes_of
from inference_server.tasks.documents.values import Line

_ADVANCE = ADVANCE / 1000
# Of a word's height: a little more than what readers take for a space (poppler: 0.15). They look at the gap, whatever is written in it.
_LEAST_GAP = 0.18
# However near the next word is, so much of a word's width is left.
_LEAST_WIDTH = 0.5


@dataclass(frozen=True, kw_only=True)
class PlacedText:
    """A run of characters of the font without ink, at size 1."""

    codes: tuple[int, ...]
    # The text matrix a b c d e f, in points.
    matrix: tuple[float, float, float, float, float, float]


def placed_words(line: Line, to_points: NDArray[np.float64]) -> Iterator[PlacedText]:
    """The words of a line; each but the last ends in a space, so that readers need not guess. `to_points`: [2, 3], from pixels."""
    quads = [word.polygon.astype(np.float64) @ to_points[:, :2].T + to_points[:, 2] for word in line.words]
    for index, (word, quad) in enumerate(zip(line.words, quads, strict=True)):
        codes = codes_of(word.text)
        top_left, top_right, bottom_right, bottom_left = quad
        along = (top_right - top_left + bottom_right - bottom_left) / 2
        up = (top_left - bottom_left + top_right - bottom_right) / 2
        if not codes or abs(along[0] * up[1] - along[1] * up[0]) < 1e-9:
            continue
        is_last = index == len(quads) - 1
        along = (along if is_last else along * _share(quad, quads[index + 1])) / (_ADVANCE * len(codes))
        spaced = codes if is_last else (*codes, 0x20)
        yield PlacedText(codes=spaced, matrix=(*along.tolist(), *up.tolist(), *bottom_left.tolist()))


def _share(quad: NDArray[np.float64], following: NDArray[np.float64]) -> float:
    """How much of a word's width is taken, so that a gap is left before the next one: boxes of words that stand close overlap."""
    begin, end = quad[[0, 3]].mean(axis=0), quad[[1, 2]].mean(axis=0)
    width, height = float(np.hypot(*(end - begin))), float(np.hypot(*(quad[0] - quad[3])))
    if width <= 0:
        return 1.0
    room = float((following[[0, 3]].mean(axis=0) - begin) @ (end - begin)) / width - _LEAST_GAP * height
    return 1.0 if room < 0 else float(np.clip(room / width, _LEAST_WIDTH, 1.0))
