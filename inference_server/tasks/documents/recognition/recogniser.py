"""Reading lines: crops of a page in width buckets, and characters with their places out of what the recogniser answers.

The recogniser is trained with connectionist temporal classification (Graves et al. 2006): it answers for each step along the line how
likely each character is; a blank stands between characters, and a character that spans several steps counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.curved import edges_of, points_at
from inference_server.tasks.documents.images.ink import Gaps, ink_of
from inference_server.tasks.documents.recognition.steps import Steps
from inference_server.tasks.documents.values import Outline, Page, Quad, sides_of

# What the network was trained on; it takes no other height.
LINE_HEIGHT = 48
# A quad that is this much higher than wide may hold text that runs up or down, up to the second ratio also one letter.
_TURNED_RATIO = 1.5
_LETTER_RATIO = 3.0
# OpenCV cuts nothing out of, or into, more pixels a side; no line of text is so long.
_MOST_SIDE = 30_000
# A space is put where a long line was cut, if this many columns there have no ink.
_CUT_SPACE = 8
# A line that rises or falls by at most this share of its length is level.
_LEVEL = 0.05
# A long line is cut in this last share of its piece.
_CUT_WITHIN = 0.4
# Of the range of a pixel; zero as the network takes it.
_MIDDLE = np.float32(127.5)
# From this confidence on a character is not doubted; below it, what is at least so likely is told beside it.
SURE = 0.99
_LEAST_LIKELY = 0.002
# Between the strokes of `II` a step may be read as one more in bfloat16: 0.70 beside 0.29 for the blank, 0.95 before and behind it. Of
# 54,000 characters that were read so, on pages of six kinds, none was one with such a step.
_LEAST_STEPS_OF_TWO, _BLANK_OF_TWO, _SURE_OF_TWO = 3, 0.2, 0.9


@dataclass(frozen=True, kw_only=True)
class RecognitionSettings:
    """How lines are cut out of a page."""

    # Widths of the network's input are multiples of these, so that lines of all pages and callers share batches: of the first up to
    # the width that follows, where padding would cost the most, and of the second beyond.
    narrow_step: int = 32
    most_narrow: int = 320
    width_step: int = 64
    least_width: int = 96
    # A longer line is read in pieces of at most this.
    most_width: int = 1280
    # What a batch of lines costs beside its columns, in columns: so many may be padded to save one. Measured with OpenVINO, which prepares
    # its 200 nodes anew for each shape.
    columns_a_run: int = 100
    # A run has one of these numbers of lines, as the model's `lamina.run_rows` says: what is prepared for a shape is kept, and there are to
    # be few.
    run_rows: tuple[int, ...] = (8, 4, 2, 1)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One line, or a piece of one, as the recogniser takes it."""

    # RGB, uint8 [48, width, 3], not padded.
    image: NDArray[np.uint8]
    # Takes x, y of the crop to x, y of the page; float64 [3, 3].
    to_page: NDArray[np.float64]

    @property
    def width(self) -> int:
        """In pixels, without padding."""
        return int(self.image.shape[1])

    def quad(self, left: float, right: float) -> Quad:
        """The part between two x of the crop, on the page."""
        corners = np.array([[[left, 0], [right, 0], [right, LINE_HEIGHT], [left, LINE_HEIGHT]]], np.float64)
        return np.asarray(cv2.perspectiveTransform(corners, self.to_page)[0], np.float32)


@dataclass(frozen=True, kw_only=True)
class CurvedCrop(Crop):
    """A line that bends, straightened: its outline instead of a matrix tells where it lies."""

    # The upper and the lower edge on the page [2, N, 2], and the x of the crop of each of their points [N].
    edges: NDArray[np.float32]
    places: NDArray[np.float64]

    def quad(self, left: float, right: float) -> Quad:
        """The part between two x of the crop, on the page."""
        upper, lower = (points_at(edge, self.places, np.array([left, right])) for edge in self.edges)
        return np.array([*upper, *lower[::-1]], np.float32)


@dataclass(frozen=True, kw_only=True)
class Character:
    """One character that was read."""

    text: str
    # 0 to 1.
    confidence: float
    # Its middle, in pixels of the crop.
    x: float
    # How likely a space stands between it and the next, 0 to 1.
    space_after: float = 0.0
    # What it may be instead, and how likely: letters and digits of ASCII, and the empty text for nothing. None where it is sure.
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a crop that is short enough to be read at once."""

    # x of the crop at which it begins.
    offset: int
    # RGB, uint8 [48, width, 3].
    image: NDArray[np.uint8]
    # Whether a gap between words precedes it.
    after_space: bool = False

    @property
    def width(self) -> int:
        """In pixels, without padding."""
        return int(self.image.shape[1])


def crops_of(page: Page, outline: Outline) -> list[Crop]:
    """The crops that an outline may mean: one as a rule, and where it stands upright, one for each way in which its text may run."""
    return _crops_of_quad(page, outline) if len(outline) == 4 else _crops_of_curve(page, outline)


def _crops_of_curve(page: Page, outline: Outline) -> list[Crop]:
    width, height = np.ptp(outline, axis=0)
    if max(width, height) > _MOST_SIDE:
        return []
    ways = [outline, np.roll(outline, len(outline) // 2, axis=0)] if height >= _TURNED_RATIO * width else [outline]
    return [_curved_crop(page, way) for way in ways]


def _curved_crop(page: Page, outline: Outline) -> CurvedCrop:
    """Cut a line out of a page along its curve, straightened to a height of 48 pixels."""
    edges = np.stack(edges_of(outline))
    steps = np.linalg.norm(np.diff(edges.mean(axis=0), axis=0), axis=1)
    places = np.concatenate([[0.0], np.cumsum(steps)])
    height = float(np.linalg.norm(edges[1] - edges[0], axis=1).mean())
    around, offset = _around(page, outline)
    # What is made smaller is cut out in its own size first, as a straight line is.
    scale = max(1.0, LINE_HEIGHT / max(height, 1.0))
    width, rows = max(1, round(places[-1] * scale)), max(LINE_HEIGHT, round(height))
    along = (np.arange(width) + 0.5) / width * places[-1]
    upper, lower = (points_at(edge - offset, places, along) for edge in edges)
    down = ((np.arange(rows) + 0.5) / rows)[:, None, None]
    at = (upper + down * (lower - upper) - 0.5).astype(np.float32)
    cut = cv2.remap(around, at[:, :, 0], at[:, :, 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    line_width = max(1, round(width * LINE_HEIGHT / rows))
    image = cut if rows == LINE_HEIGHT else cv2.resize(cut, (line_width, LINE_HEIGHT), interpolation=cv2.INTER_LINEAR)
    return CurvedCrop(
        image=np.asarray(image, np.uint8), to_page=np.eye(3), edges=edges, places=places * line_width / max(float(places[-1]), 1e-6)
    )


def _crops_of_quad(page: Page, quad: Quad) -> list[Crop]:
    width, height = sides_of(quad)
    ratio = height / max(width, 1.0)
    if max(width, height) > _MOST_SIDE:
        return []
    turns = [0] if ratio <= _LETTER_RATIO else []
    if ratio >= _TURNED_RATIO:
        # Text that runs downwards begins at the quad's top right, text that runs upwards at its bottom left.
        turns += [-1, 1]
    return [_crop(page, np.roll(quad, turn, axis=0) if turn else quad) for turn in turns]


def _crop(page: Page, quad: Quad) -> Crop:
    """Cut a quad out of a page, straightened to a height of 48 pixels."""
    corners = quad.astype(np.float32)
    width, height = (max(1, round(side)) for side in sides_of(corners))
    # On level lines that are enlarged, cubic interpolation would overshoot beside each stroke; along a slope linear one would blur them.
    is_level = float(np.abs(corners[1] - corners[0]).min()) <= _LEVEL * width
    interpolation = cv2.INTER_LINEAR if is_level and height < LINE_HEIGHT else cv2.INTER_CUBIC
    if height < LINE_HEIGHT:
        # Small letters are enlarged in the same step: a second one would blur them again.
        width, height = max(1, round(width * LINE_HEIGHT / height)), LINE_HEIGHT
    around, offset = _around(page, corners)
    square = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    to_crop = cv2.getPerspectiveTransform(corners - offset, square)
    cut = cv2.warpPerspective(around, to_crop, (width, height), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    line_width = max(1, round(width * LINE_HEIGHT / height))
    image = cut if height == LINE_HEIGHT else cv2.resize(cut, (line_width, LINE_HEIGHT), interpolation=cv2.INTER_LINEAR)
    unscale = np.diag([width / line_width, height / LINE_HEIGHT, 1.0])
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], np.float64)
    return Crop(image=np.asarray(image, np.uint8), to_page=np.asarray(shift @ np.linalg.inv(to_crop) @ unscale, np.float64))


def _around(page: Page, corners: Quad) -> tuple[Page, NDArray[np.float32]]:
    """The part of a page that holds a quad, and its x and y on the page: OpenCV does not take pages beyond 32,767 pixels a side."""
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0) - 2
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 3
    left, top = max(0, left), max(0, top)
    # A page that was turned is a view that OpenCV does not take.
    return np.ascontiguousarray(page[top:bottom, left:right]), np.array([left, top], np.float32)


def pieces_of(crop: Crop, settings: RecognitionSettings) -> list[Piece]:
    """A crop in pieces of at most `most_width`, cut where the widest gap without ink is."""
    pieces, offset, after_space = [], 0, False
    gaps = Gaps(np.asarray(ink_of(crop.image).any(axis=0))) if crop.width > settings.most_width else None
    while gaps is not None and crop.width - offset > settings.most_width:
        first, last = offset + int(settings.most_width * (1 - _CUT_WITHIN)), offset + settings.most_width
        gap_start, gap_end = gaps.widest(first, last)
        cut = (gap_start + gap_end) // 2
        pieces.append(Piece(offset=offset, image=crop.image[:, offset:cut], after_space=after_space))
        offset, after_space = cut, gap_end - gap_start >= _CUT_SPACE
    return [*pieces, Piece(offset=offset, image=crop.image[:, offset:], after_space=after_space)]


def bucket_width(width: int, settings: RecognitionSettings) -> int:
    """The padded width of a line."""
    step = settings.narrow_step if width <= settings.most_narrow else settings.width_step
    return max(settings.least_width, -(-width // step) * step)


def batches_of(pieces: Sequence[Piece], rows: int, settings: RecognitionSettings) -> list[tuple[int, list[Piece]]]:
    """Pieces in batches of at most `rows`, each with its padded width, so that runs and padding cost the least together."""
    ordered = sorted(pieces, key=lambda piece: piece.width)
    runs = [_runs(count, settings.run_rows) for count in range(rows + 1)]
    # The least cost of all pieces up to each, in columns, and where the last of their batches begins.
    costs, starts = [0], [0]
    for end in range(1, len(ordered) + 1):
        width = bucket_width(ordered[end - 1].width, settings)
        some = range(max(0, end - rows), end)
        cost, start = min((costs[start] + width * (end - start) + settings.columns_a_run * runs[end - start], start) for start in some)
        costs.append(cost)
        starts.append(start)
    batches, end = [], len(ordered)
    while end:
        batches.append((bucket_width(ordered[end - 1].width, settings), ordered[starts[end] : end]))
        end = starts[end]
    return batches[::-1]


def _runs(count: int, run_rows: Sequence[int]) -> int:
    """In how many runs so many lines are read, the largest first."""
    runs = 0
    for rows in run_rows:
        runs += count // rows
        count %= rows
    return runs


def recognizer_input(images: Sequence[NDArray[np.uint8]], width: int) -> NDArray[np.float32]:
    """Normalise and pad images of lines to one width: float32 [N, 3, 48, width], in the order blue, green, red."""
    # Zero is what the network was trained to take as nothing.
    batch = np.zeros((len(images), 3, LINE_HEIGHT, width), np.float32)
    for row, image in zip(batch, images, strict=True):
        np.subtract(image[:, :, ::-1].transpose(2, 0, 1), _MIDDLE, out=row[:, :, : image.shape[1]])
    batch /= _MIDDLE
    return batch


def decode(steps: Steps, characters: tuple[str, ...], width: int) -> list[list[Character]]:
    """The characters of each line of some that were padded to `width`. `characters`: by class, the blank first."""
    return [_decoded(line, characters, width / len(line.classes)) for line in steps.by_line()]


def _decoded(line: Steps, characters: tuple[str, ...], step_width: float) -> list[Character]:
    # Of a few steps each, numbers of Python are compared sooner than arrays.
    confidences, spaces, read = line.confidences.tolist(), line.spaces.tolist(), line.classes.tolist()
    starts = [0, *(np.flatnonzero(line.classes[1:] != line.classes[:-1]) + 1).tolist()]
    runs = ((start, end) for start, end in zip(starts, [*starts[1:], len(read)], strict=True) if read[start])
    seen = [part for start, end in runs for part in ([(start, end)] if characters[read[start]] == " " else _parted(line, start, end))]
    next_starts = [*(start for start, _ in seen[1:]), len(read)]
    return [
        Character(
            text=characters[read[start]],
            confidence=(confidence := min(1.0, max(confidences[start:end]))),
            x=(start + end) / 2 * step_width,
            space_after=max(spaces[end:next_start], default=0.0),
            others=_others(line, start, end, characters) if confidence < SURE else (),
        )
        for (start, end), next_start in zip(seen, next_starts, strict=False)
    ]


def _parted(line: Steps, start: int, end: int) -> list[tuple[int, int]]:
    """The steps of one character, or of the two that they are where a sure one and a sure one have a doubted step between them."""
    if end - start < _LEAST_STEPS_OF_TWO:
        return [(start, end)]
    blanks, sure = line.common(start + 1, end - 1)[:, 0], line.confidences[start:end]
    doubted = 1 + int(blanks.argmax())
    if blanks[doubted - 1] < _BLANK_OF_TWO or min(sure[:doubted].max(), sure[doubted + 1 :].max()) < _SURE_OF_TWO:
        return [(start, end)]
    return [(start, start + doubted), (start + doubted + 1, end)]


def _others(line: Steps, start: int, end: int, characters: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """What else may stand where a character was read, over its steps."""
    common = line.common(start, end)
    likely = common.max(axis=0)
    read = line.classes[start]
    # Nothing stands there only if there is nothing at each of the steps.
    nothing = float(common[:, 0].min())
    found = [(characters[index], float(likely[index])) for index in np.flatnonzero(likely >= _LEAST_LIKELY).tolist() if index != read]
    others = [(text, share) for text, share in found if len(text) == 1 and text.isascii() and text.isalnum()]
    return (*others, *((("", nothing),) if nothing >= _LEAST_LIKELY else ()))
