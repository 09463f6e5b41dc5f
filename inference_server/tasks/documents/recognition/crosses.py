"""A printed x that was read as the sign of multiplication, as between a number and a price: an x stands on the line, the sign above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.ink import ink_of, last_row_of
from inference_server.tasks.documents.recognition.recogniser import Character, Crop

_SIGN, _LETTER = "×", "x"
# An x ends so near to the foot of the digits beside it, as a share of their height. In 22 faces it does at 0.05 at most; signs of most
# begin at 0.06, and those of Times, which stand lower, are read without a thought of an x.
_MOST_RAISED = 0.05


def with_printed_x(characters: Sequence[Character], crop: Crop) -> Sequence[Character]:
    """The characters of a line; a sign of multiplication that may be an x, and stands on the line as digits beside it do, is one."""
    doubted = [index for index, character in enumerate(characters) if _likelihood_of_x(character)]
    if not doubted:
        return characters
    ink = ink_of(crop.image)
    told = list(characters)
    for index in doubted:
        if _stands_on_line(characters, index, ink):
            told[index] = replace(told[index], text=_LETTER, confidence=_likelihood_of_x(told[index]), others=())
    return told


def _likelihood_of_x(character: Character) -> float:
    """0 for what is no sign of multiplication."""
    return dict(character.others).get(_LETTER, 0.0) if character.text == _SIGN else 0.0


def _stands_on_line(characters: Sequence[Character], index: int, ink: NDArray[np.bool_]) -> bool:
    visible = [character for character in characters if not character.text.isspace()]
    place = next(number for number, character in enumerate(visible) if character is characters[index])
    # Ink of a character lies between the middles to its neighbours.
    middles = [(before.x + after.x) / 2 for before, after in pairwise(visible)]
    edges = [0, *(round(middle) for middle in middles), ink.shape[1]]

    def rows(number: int) -> NDArray[np.intp]:
        return np.flatnonzero(ink[:, edges[number] : edges[number + 1]].any(axis=1))

    digits = [rows(number) for number in (place - 1, place + 1) if 0 <= number < len(visible) and visible[number].text.isdecimal()]
    digits, own = [found for found in digits if len(found)], rows(place)
    if not digits or not len(own):
        return False
    foot, height = (float(np.mean([value(found) for found in digits])) for value in (lambda found: found[-1], np.ptp))
    # Where digits reach into the margin of their line, nothing is known of their foot.
    return foot < last_row_of(ink) and foot - float(own[-1]) <= _MOST_RAISED * height
