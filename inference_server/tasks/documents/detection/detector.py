"""Finding text on a page: what the detector is given, and quads out of what it answers.

Differentiable binarisation (Liao et al. 2020, arXiv:1911.08947): the network gives for each pixel how likely it lies in the shrunk core of
a line of text; each connected core is boxed and grown back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.curved import Curve, Rectangle, curve_of, may_bend
from inference_server.tasks.documents.images.colours import grey_of
from inference_server.tasks.documents.images.ink import Print, print_of
from inference_server.tasks.documents.images.margins import written_area
from inference_server.tasks.documents.images.specks import without_specks
from inference_server.tasks.documents.values import Outline, Page, Quad

# What is left of a quad at the page's edge is no text below this, in pixels of the network's input.
_LEAST_AREA = 16
# A page with so many bent lines, and so many for each core that is no line, bends, and is seen too small.
_LEAST_BENT, _BENT_A_TANGLE = 4, 2
# The edge of a core is blurred, so that it lies so much too far out, in pixels of the input: twice a tenth of the core of small letters.
# Specks that were taken away took what is loose of letters with them: there cores are no larger than they should be.
_BLURRED_EDGE = 0.5
# Of the core of one letter most is edge: what lies within a pixel of it tells no less surely, up to so long a core.
_LETTER_CORE, _LETTER_EDGE = 12, 1


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How text is looked for."""

    # A page is scaled so that its shorter side lies between these, in pixels. Where its longer side would pass the third, it is searched
    # in strips.
    least_short_side: int = 736
    most_short_side: int = 1440
    most_long_side: int = 4096
    most_enlargement: float = 4.0
    # A page whose small letters would be higher than this many pixels is scaled down further: its size is what detection costs.
    # On clean pages lines are still found when they are half as high.
    letter_height: float = 8.0
    # A page that is smaller than the first is enlarged no further than until its small letters are so high.
    enlarged_letter_height: float = 12.0
    # Sides of the network's input are multiples of this, so that pages of nearly one size share a batch. A multiple of 32.
    side_step: int = 64
    # Blank margins are cut off, except so much around the text, in pixels of the input; sides that were cut are multiples of the second.
    # A size that OpenVINO meets for the first time costs it a quarter more, and 3.4 MB from then on: there are to be few.
    blank_margin: int = 32
    cut_step: int = 128
    # A pixel is core from this likelihood on.
    pixel_threshold: float = 0.3
    # A core is text when its mean likelihood is at least this.
    box_threshold: float = 0.5
    # So is the small core of a letter that stands alone when what lies within its edge has at least this mean.
    letter_threshold: float = 0.4
    # By how much a core is grown: area times this, divided by the perimeter.
    growth: float = 1.6
    most_boxes: int = 3000


@dataclass(frozen=True, kw_only=True)
class DetectorInput:
    """A page as the detector takes it."""

    # float32 [1, 3, H, W], in the order blue, green, red.
    tensor: NDArray[np.float32]
    # Page pixels for each pixel of the input, along x and along y.
    scale: tuple[float, float]
    # Height and width of the page's part within the input; the rest is padding.
    extent: tuple[int, int]
    # x and y on the page, in its pixels, where that part begins.
    origin: tuple[int, int] = (0, 0)
    # Whether specks were taken away.
    is_cleaned: bool = False


def detector_input(page: Page, settings: DetectionSettings) -> DetectorInput:
    """Take the part of a page that is not blank, scale, pad and normalise it."""
    height, width = page.shape[:2]
    plane = grey_of(page)
    gray = np.asarray(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), np.uint8) if plane is None else plane
    area = written_area(gray)
    printed = print_of(gray, area)
    factor = _scale_factor(gray.shape, printed, settings)
    left, right, inner_width = _window(area.left, area.right, width, factor, settings)
    top, bottom, inner_height = _window(area.top, area.bottom, height, factor, settings)
    part = (page if plane is None else plane)[top:bottom, left:right]
    if (inner_height, inner_width) != part.shape[:2]:
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        part = np.asarray(cv2.resize(part, (inner_width, inner_height), interpolation=interpolation), np.uint8)
    if printed.is_speckled:
        part = without_specks(np.ascontiguousarray(part))
    return DetectorInput(
        tensor=_tensor(part, settings.side_step),
        scale=((right - left) / inner_width, (bottom - top) / inner_height),
        extent=(inner_height, inner_width),
        origin=(left, top),
        is_cleaned=printed.is_speckled,
    )


def _tensor(part: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
    """A grey or coloured picture [H, W] or [H, W, 3], padded and normalised: [1, 3, H, W], in the order blue, green, red."""
    height, width = part.shape[:2]
    # The page goes on as it ends: any other padding would draw an edge.
    padded = cv2.copyMakeBorder(part, 0, -height % step, 0, -width % step, cv2.BORDER_REPLICATE)
    tensor = np.asarray(cv2.dnn.blobFromImage(padded, scalefactor=1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=part.ndim == 3), np.float32)
    return tensor if part.ndim == 3 else np.repeat(tensor, 3, axis=1)


@dataclass(frozen=True, kw_only=True)
class DetectedText:
    """The text that the detector saw."""

    # Quads where it is straight.
    outlines: tuple[Outline, ...]
    # Whether lines that bend hang together, which a larger input would part.
    is_tangled: bool


def detected_text(likelihood: NDArray[np.float32], source: DetectorInput, settings: DetectionSettings) -> DetectedText:
    """What the detector's answer [H, W] for `source` tells; coordinates in page pixels."""
    inner_height, inner_width = source.extent
    likelihood = np.ascontiguousarray(likelihood[:inner_height, :inner_width], dtype=np.float32)
    core = cv2.dilate((likelihood > settings.pixel_threshold).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(core, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    limit = np.array([inner_width - 1, inner_height - 1], np.float32)
    scale, origin = np.array(source.scale, np.float32), np.array(source.origin, np.float32)
    rectangles = [(contour, cv2.minAreaRect(contour)) for contour in contours[: settings.most_boxes]]
    cores = [(contour, rectangle) for contour, rectangle in rectangles if min(rectangle[1]) >= 3]
    curves = {index: curve_of(*core) for index, core in enumerate(cores) if may_bend(*core)}
    edge = 0.0 if source.is_cleaned else _BLURRED_EDGE
    kept = (index for index, core in enumerate(cores) if _is_text(core[1], curves.get(index), likelihood, settings))
    found = (_outline_of(cores[index][1], curves.get(index), edge, settings) for index in kept)
    outlines = [outline.clip(0, limit) for outline in found if outline is not None]
    bent = sum(curve is not None for curve in curves.values())
    tangled = len(curves) - bent
    return DetectedText(
        outlines=tuple((outline * scale + origin).astype(np.float32) for outline in outlines if cv2.contourArea(outline) >= _LEAST_AREA),
        is_tangled=tangled > 0 and bent >= max(_LEAST_BENT, _BENT_A_TANGLE * tangled),
    )


def _is_text(rectangle: Rectangle, curve: Curve | None, likelihood: NDArray[np.float32], settings: DetectionSettings) -> bool:
    if _mean_inside(likelihood, curve.outline(0) if curve else _corners(*rectangle)) >= settings.box_threshold:
        return True
    center, size, angle = rectangle
    if curve or max(size) > _LETTER_CORE:
        return False
    width, height = (max(side - 2 * _LETTER_EDGE, 1) for side in size)
    return _mean_inside(likelihood, _corners(center, (width, height), angle)) >= settings.letter_threshold


def _outline_of(rectangle: Rectangle, curve: Curve | None, edge: float, settings: DetectionSettings) -> Outline | None:
    """A core's outline, its edge taken off and grown back, in pixels of the input; None for what is too small for text."""
    center, size, angle = rectangle
    length, height = (curve.length, curve.height) if curve else size
    inner_length, inner_height = length - 2 * edge, height - 2 * edge
    # A rectangle grown by a distance with round joins has the same bounds as one with longer sides.
    growth = inner_length * inner_height * settings.growth / (2 * (inner_length + inner_height)) - edge
    if curve:
        return curve.outline(growth)
    grown = (length + 2 * growth, height + 2 * growth)
    return clockwise(_corners(center, grown, angle)) if min(grown) >= 5 else None


def clockwise(corners: NDArray[np.float32]) -> Quad:
    """Four corners in order: top left, top right, bottom right, bottom left.

    The first side is the one that is nearest to level, however long: a line that runs up or down is higher than wide at any slope.
    """
    points = corners.tolist()
    x, y = (sum(values) / 4 for values in zip(*points, strict=True))
    around = sorted(points, key=lambda point: math.atan2(point[1] - y, point[0] - x))
    start = max(range(4), key=lambda index: _levelness(*(around[(index + step) % 4] for step in range(4))))
    return np.array(around[start:] + around[:start], np.float32)


def _levelness(first: Sequence[float], second: Sequence[float], third: Sequence[float], last: Sequence[float]) -> float:
    """The cosine of the angle at which a quad's first side and the one opposite lead to the right."""
    across, down = (second[axis] + third[axis] - first[axis] - last[axis] for axis in (0, 1))
    return across / (math.hypot(across, down) or 1.0)


def _corners(center: Sequence[float], size: Sequence[float], angle: float) -> NDArray[np.float32]:
    return np.asarray(cv2.boxPoints((center, size, angle)), np.float32)


def wanted_scale(shape: tuple[int, ...], letter_height: float | None, settings: DetectionSettings) -> float:
    """Pixels of the input for each of a page's, whatever its longer side comes to. `letter_height`: in its pixels; None if unknown."""
    short_side = float(min(shape[:2]))
    least = settings.least_short_side / short_side
    if letter_height is not None:
        least = min(least, max(1.0, settings.enlarged_letter_height / letter_height))
    # A strip, such as one line, is not enlarged beyond what its text needs.
    most = min(max(least, min(1.0, settings.most_short_side / short_side)), settings.most_enlargement)
    if most <= least or letter_height is None:
        return most
    return min(most, max(least, settings.letter_height / letter_height))


def _scale_factor(shape: tuple[int, ...], printed: Print, settings: DetectionSettings) -> float:
    return min(wanted_scale(shape, printed.letter_height, settings), settings.most_long_side / float(max(shape)))


def _window(first: int, last: int, side: int, factor: float, settings: DetectionSettings) -> tuple[int, int, int]:
    """What to take along one side of a page, around what lies from `first` to `last`: from, to, and its length in pixels of the input."""
    whole = max(1, round(side * factor))
    length = _round_up(math.ceil((last - first) * factor) + 2 * settings.blank_margin, settings.cut_step)
    if length >= whole:
        return 0, side, whole
    taken = min(side, round(length / factor))
    start = min(max(0, (first + last - taken) // 2), side - taken)
    return start, start + taken, length


def _mean_inside(likelihood: NDArray[np.float32], corners: NDArray[np.float32]) -> float:
    height, width = likelihood.shape
    x_least, y_least = np.floor(corners.min(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    x_most, y_most = np.ceil(corners.max(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    mask = np.zeros((y_most - y_least + 1, x_most - x_least + 1), np.uint8)
    cv2.fillPoly(mask, [np.round(corners - (x_least, y_least)).astype(np.int32)], 1)
    return float(cv2.mean(likelihood[y_least : y_most + 1, x_least : x_most + 1], mask)[0])


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
