"""Long pages are searched for text strip by strip, each at the size that its text needs; what two strips saw is told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.detector import DetectedText, DetectionSettings, clockwise, wanted_scale
from inference_server.tasks.documents.images.colours import grey_of
from inference_server.tasks.documents.images.ink import print_of
from inference_server.tasks.documents.images.margins import written_area
from inference_server.tasks.documents.values import Outline, Page

# Of a strip's length, how much of it the next one sees again: more than two lines of any size that would be read.
_OVERLAP = 0.1
# An outline that ends so near to where its strip was cut, in pixels of the detector's input, may go on behind.
_NEAR_CUT = 8
# Two outlines show the same text where they share so much of what the smaller has in the part that both strips saw.
_SAME = 0.5
# A strip with less between its darkest and its lightest level of 255 is blank.
_LEAST_CONTRAST = 8

# Left, top, right, bottom.
_Bounds = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A part of a page, over its whole shorter side."""

    page: Page
    # x and y where it begins.
    origin: tuple[int, int]


def strips_of(page: Page, settings: DetectionSettings) -> list[Strip]:
    """The page itself, or, where that would have to be made smaller than its text needs, those parts, overlapping, that are not blank."""
    height, width = page.shape[:2]
    longest = settings.most_long_side
    if max(height, width) * wanted_scale(page.shape, None, settings) <= longest:
        return [Strip(page=page, origin=(0, 0))]
    plane = grey_of(page)
    gray = np.asarray(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), np.uint8) if plane is None else plane
    scale = wanted_scale(page.shape, print_of(gray, written_area(gray)).letter_height, settings)
    side = int(longest / scale)
    if max(height, width) <= side:
        return [Strip(page=page, origin=(0, 0))]
    starts = _starts(max(height, width), side)
    if height >= width:
        strips = [Strip(page=page[start : start + side], origin=(0, start)) for start in starts]
    else:
        strips = [Strip(page=np.ascontiguousarray(page[:, start : start + side]), origin=(start, 0)) for start in starts]
    return [strip for strip in strips if int(strip.page.max()) - int(strip.page.min()) >= _LEAST_CONTRAST] or strips[:1]


def _starts(whole: int, side: int) -> list[int]:
    """Where strips of one length begin, spread evenly, each at least the overlap before the last one's end."""
    count = -(-(whole - side) // round(side * (1 - _OVERLAP))) + 1
    return [round(number * (whole - side) / (count - 1)) for number in range(count)]


def joined(strips: Sequence[Strip], found: Sequence[DetectedText], settings: DetectionSettings) -> DetectedText:
    """What was found on the strips, in pixels of the page; what two of them saw, once."""
    placed = [[outline + np.array(strip.origin, np.float32) for outline in one.outlines] for strip, one in zip(strips, found, strict=True)]
    near = _NEAR_CUT / wanted_scale(strips[0].page.shape, None, settings)
    told = list(placed[0])
    for before, after, outlines in zip(strips, strips[1:], placed[1:], strict=False):
        told = _merged(told, outlines, _Seam.between(before, after, near))
    return DetectedText(outlines=tuple(told), is_tangled=any(one.is_tangled for one in found))


@dataclass(frozen=True, kw_only=True)
class _Seam:
    """Where a strip and the next one overlap."""

    # 0 where strips follow along x, 1 along y.
    axis: int
    # From where the next one begins to where the first one ends.
    start: float
    end: float
    near: float

    @staticmethod
    def between(before: Strip, after: Strip, near: float) -> _Seam:
        axis = 0 if after.origin[0] else 1
        return _Seam(axis=axis, start=after.origin[axis], end=before.origin[axis] + before.page.shape[1 - axis], near=near)

    def is_cut_before(self, bounds: _Bounds) -> bool:
        """Whether what the first strip saw may go on behind its end."""
        return bool(bounds[self.axis + 2] >= self.end - self.near)

    def is_cut_after(self, bounds: _Bounds) -> bool:
        """Whether what the next strip saw may have begun before it."""
        return bool(bounds[self.axis] <= self.start + self.near)

    def within(self, bounds: _Bounds) -> _Bounds:
        """The part of some bounds that both strips saw."""
        part = bounds.copy()
        part[self.axis], part[self.axis + 2] = max(part[self.axis], self.start), min(part[self.axis + 2], self.end)
        return part


def _merged(told: Sequence[Outline], outlines: Sequence[Outline], seam: _Seam) -> list[Outline]:
    """What was told already, and what the next strip adds to it."""
    known = {index: outline for index, outline in enumerate(told) if _bounds(outline)[seam.axis + 2] > seam.start}
    kept: dict[int, Outline | None] = dict(enumerate(told))
    added = []
    for outline in outlines:
        same = [index for index, one in known.items() if _is_same(_bounds(one), _bounds(outline), seam)]
        cut = [index for index in same if seam.is_cut_before(_bounds(known[index]))]
        if len(cut) < len(same):
            # The first strip saw it whole, or saw more of it than this one, which begins within it.
            continue
        if cut and seam.is_cut_after(_bounds(outline)):
            # It runs through all that both saw.
            outline = _united([*(known[index] for index in cut), outline])
        kept.update(dict.fromkeys(cut))
        added.append(outline)
    return [outline for outline in kept.values() if outline is not None] + added


def _is_same(first: _Bounds, second: _Bounds, seam: _Seam) -> bool:
    smaller = min(_area(seam.within(first)), _area(seam.within(second)))
    shared = np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])])
    return smaller > 0 and _area(shared) >= _SAME * smaller


def _bounds(outline: Outline) -> _Bounds:
    return np.concatenate([outline.min(axis=0), outline.max(axis=0)])


def _area(bounds: _Bounds) -> float:
    return float(max(bounds[2] - bounds[0], 0) * max(bounds[3] - bounds[1], 0))


def _united(outlines: Sequence[Outline]) -> Outline:
    return clockwise(np.asarray(cv2.boxPoints(cv2.minAreaRect(np.concatenate(outlines))), np.float32))
