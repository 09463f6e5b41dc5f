"""Light that is reflected on a page: spots that are burnt out, or text that fades into them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.colours import grey_of
from inference_server.tasks.documents.images.spots import spots_of
from inference_server.tasks.documents.values import Page, Quad

# The page is looked at at this size.
_SIDE = 500
# From here on a pixel is burnt out, in its darkest channel.
_BURNT = 250
# Paper that is as light as this over most of the text is white, or lies in the light itself.
_WHITE_PAPER = 240
# Paper that lies in the light is darker than this, in a tenth of the text's area, where the light ends; white paper is white all over.
_WHITE_ALL_OVER, _TENTH = 248, 10
# Ground is the lightest pixel of so many around, which letters do not hide.
_GROUND = 7
# A burnt spot is at least this share of the text's area; smaller ones are letters on dark ground, and dust.
_LEAST_SPOT = 0.002
# Around a sheet straight lines leave its outline by at most this share of its length, between so many corners: four, and more where the
# edge of the picture cuts some off and light lies on it (4 to 6 were measured); half an ellipse has 8 and 9.
_STRAIGHT, _MOST_CORNERS = 0.01, 7
# Text is looked at in pieces of so many columns of a line's crop, with its upper and lower edges left out. Ink is faded where the ground is
# as light as the second, and the ink so much lighter than that of the darkest quarter.
_PIECE, _EDGE = 16, 2
_LIT, _FADED, _DARK_QUARTER = 0.96, 0.3, 25
_LEAST_CONTRAST = 0.08
# Of rendered cards that are read well up to 0.05 of the pieces are faded, and 0.15 of small ones; of those with a reflection over half of
# their text 0.1 to 0.35, unless hardly any text is left.
_LEAST_FADED = 0.08


def glare_of(page: Page, quads: Sequence[Quad], crops: Sequence[NDArray[np.float32]]) -> float:
    """Burnt-out spots among the text, as a share of the area that the text spans.

    `crops`: lines, straight and of one height, grey from 0 to 1. White paper is no glare.
    """
    scale = min(1.0, _SIDE / max(page.shape[:2]))
    plane = grey_of(page)
    whole = page if plane is None else plane
    small = np.asarray(cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else whole, np.uint8)
    hull = cv2.convexHull((np.concatenate(quads) * scale).astype(np.int32))
    area = np.zeros(small.shape[:2], np.uint8)
    cv2.fillConvexPoly(area, hull, 1)
    darkest = small if small.ndim == 2 else small.min(axis=2)
    inside = area.astype(bool)
    if not inside.any() or (np.median(darkest[inside]) >= _WHITE_PAPER and not _lies_in_light(darkest, inside, crops)):
        return 0.0
    burnt = ((darkest >= _BURNT) & inside & ~_beside(darkest, inside)).astype(np.uint8)
    spots = spots_of(burnt)[:, 4]
    total = int(inside.sum())
    return float(spots[spots >= _LEAST_SPOT * total].sum() / total)


def _beside(darkest: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """White that comes in from the edge of the picture, and lies for the greater part outside the text: paper or a plate under a card.

    It goes from one edge to the opposite one, or has straight sides; a reflection ends within the picture, and is round.
    """
    burnt = (darkest >= _BURNT).astype(np.uint8)
    count, spots = cv2.connectedComponents(burnt, ltype=cv2.CV_32S)
    pixels, within = np.bincount(spots.ravel(), minlength=count), np.bincount(spots[inside], minlength=count)
    sides = np.zeros((4, count), bool)
    for touched, side in zip(sides, (spots[0], spots[-1], spots[:, 0], spots[:, -1]), strict=True):
        touched[side] = True
    across = (sides[0] & sides[1]) | (sides[2] & sides[3])
    beside = sides.any(axis=0) & (within > 0) & (2 * within < pixels)
    beside[0] = False
    for spot in np.flatnonzero(beside & ~across):
        beside[spot] = _is_straight((spots == spot).astype(np.uint8))
    return np.asarray(beside[spots], bool)


def _is_straight(spot: NDArray[np.uint8]) -> bool:
    """Whether a spot [H, W] has straight sides, as a sheet has."""
    # What is printed on a sheet makes no difference.
    outline = cv2.convexHull(np.argwhere(spot).astype(np.int32))
    return len(cv2.approxPolyDP(outline, _STRAIGHT * cv2.arcLength(outline, True), True)) <= _MOST_CORNERS


def _lies_in_light(darkest: NDArray[np.uint8], inside: NDArray[np.bool_], crops: Sequence[NDArray[np.float32]]) -> bool:
    """Whether paper that is white over most of the text is darker elsewhere, and text fades into the white."""
    ground = cv2.dilate(darkest, np.ones((_GROUND, _GROUND), np.uint8))
    return bool(np.percentile(ground[inside], _TENTH) < _WHITE_ALL_OVER) and _faded_share(crops) >= _LEAST_FADED


def _faded_share(crops: Sequence[NDArray[np.float32]]) -> float:
    """Of the pieces of text, those whose ink fades on the lightest ground."""
    pieces = [
        np.percentile(crop[_EDGE:-_EDGE, start : start + _PIECE], (5, 90))
        for crop in crops
        for start in range(0, crop.shape[1] - _PIECE + 1, _PIECE)
    ]
    ink, ground = np.array(pieces).T
    is_text = ground - ink >= _LEAST_CONTRAST
    if not is_text.any():
        return 0.0
    faded = is_text & (ground >= _LIT) & (ink > np.percentile(ink[is_text], _DARK_QUARTER) + _FADED)
    return float(faded.sum() / is_text.sum())
