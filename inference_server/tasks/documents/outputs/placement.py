"""Where invisible words lie: the box of each word is filled by its characters, whatever its angle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.outputs.glyphless import ADVANCE, codes_of
from inference_server.tasks.documents.values import Line

_ADVANCE = ADVANCE / 1000


@dataclass(frozen=True, kw_only=True)
class PlacedText:
    """A run of characters of the font without ink, at size 1."""

    codes: tuple[int, ...]
    # The text matrix a b c d e f, in points.
    matrix: tuple[float, float, float, float, float, float]


def placed_words(line: Line, to_points: NDArray[np.float64]) -> Iterator[PlacedText]:
    """The words of a line; each but the last ends in a space, so that readers need not guess. `to_points`: [2, 3], from pixels."""
    for index, word in enumerate(line.words):
        codes = codes_of(word.text)
        top_left, top_right, bottom_right, bottom_left = word.polygon.astype(np.float64) @ to_points[:, :2].T + to_points[:, 2]
        along = (top_right - top_left + bottom_right - bottom_left) / 2 / (_ADVANCE * len(codes))
        up = (top_left - bottom_left + top_right - bottom_right) / 2
        if not codes or abs(along[0] * up[1] - along[1] * up[0]) < 1e-9:
            continue
        spaced = (*codes, 0x20) if index < len(line.words) - 1 else codes
        yield PlacedText(codes=spaced, matrix=(*along.tolist(), *up.tolist(), *bottom_left.tolist()))
