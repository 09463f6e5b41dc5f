"""Which way up a page is, told by its text: lines higher than wide lie on their side, and text that is head down reads badly.

Read head down, printed lines have a mean confidence of 0.63 to 0.81; read upright, worn pages included, 0.95 and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.curved import tangent_of
from inference_server.tasks.documents.detection.detector import clockwise
from inference_server.tasks.documents.values import Line, Outline, Page, Quad, sides_of

# A line is this much longer than high before it tells which way text runs.
_LONG_RATIO = 2.0
# So many lines on their side, and so much more of them than of level ones, make a page that lies on its side.
_LEAST_ON_SIDE = 3
_MOSTLY = 2.0
# A page is as it should be when its lines are read with this mean confidence.
_SURE = 0.88
# The other way is right when it is read so much better, in this share of the lines, of so many characters in all.
_BETTER = 0.1
_BETTER_LINES = 0.7
_LEAST_CHARACTERS = 10


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The turn between a page as it came and as its text stands upright."""

    # Quarter turns clockwise that make it upright, 0 to 3.
    quarters: int
    # Height and width of the page as it came, in pixels.
    height: int
    width: int

    @property
    def degrees(self) -> int:
        """Clockwise."""
        return 90 * self.quarters

    def reversed(self) -> Turn:
        """The turn that puts the page the other way up."""
        return Turn(quarters=(self.quarters + 2) % 4, height=self.height, width=self.width)

    def page(self, page: Page) -> Page:
        """The page upright; a view."""
        return np.rot90(page, -self.quarters)

    def outline(self, outline: Outline) -> Outline:
        """An outline of the page as it came, on the upright page; it begins at the upright left."""
        if not self.quarters:
            return outline
        there = self._there(outline)
        if len(there) == 4:
            return clockwise(there)
        return there if there[0, 0] <= there[len(there) // 2, 0] else np.roll(there, len(there) // 2, axis=0)

    def quad(self, quad: Quad) -> Quad:
        """A quad of the page as it came, on the upright page; its corners keep their order."""
        return self._there(quad)

    def line_back(self, line: Line) -> Line:
        """A line of the upright page, on the page as it came."""
        if not self.quarters:
            return line
        words = tuple(replace(word, polygon=self.back(word.polygon)) for word in line.words)
        return replace(line, polygon=self.back(line.polygon), words=words)

    def back(self, quad: Quad) -> Quad:
        """A quad of the upright page, on the page as it came; its corners keep their order."""
        height, width = (self.height, self.width) if self.quarters % 2 == 0 else (self.width, self.height)
        return Turn(quarters=-self.quarters % 4, height=height, width=width)._there(quad)

    def _there(self, points: Outline) -> Outline:
        x, y = points[:, 0], points[:, 1]
        right, bottom = self.width - 1, self.height - 1
        turned = ((x, y), (bottom - y, x), (right - x, bottom - y), (y, right - x))[self.quarters]
        return np.stack(turned, axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How well one line was read."""

    # Characters that were read.
    characters: int
    # Their mean confidence, 0 to 1; 0 when there are none.
    confidence: float


def lies_on_side(outlines: Sequence[Outline]) -> bool:
    """Whether most of the text runs up or down the page. A few lines of it, such as stamps, turn no page that holds anything else."""
    sizes = np.array([_size(outline) for outline in outlines])
    tall = sizes[sizes[:, 1] >= _LONG_RATIO * sizes[:, 0], 1] if len(sizes) else np.empty(0)
    level = sizes[sizes[:, 0] >= _LONG_RATIO * sizes[:, 1], 0] if len(sizes) else np.empty(0)
    return (len(tall) >= _LEAST_ON_SIDE or len(tall) == len(outlines) > 0) and float(tall.sum()) > _MOSTLY * float(level.sum())


def telling(outlines: Sequence[Outline], most: int, most_ratio: float) -> list[int]:
    """Positions of up to `most` level lines that tell best which way up a page is: the longest of up to `most_ratio` heights."""
    sizes = np.array([_size(outline) for outline in outlines]).reshape(-1, 2)
    ratios = sizes[:, 0] / np.maximum(sizes[:, 1], 1)
    level = np.flatnonzero(ratios >= _LONG_RATIO)
    # Longer lines tell no more, and cost more; they come after the others.
    order = sorted(level.tolist(), key=lambda index: (ratios[index] > most_ratio, -min(ratios[index], most_ratio)))
    return order[:most]


def is_sure(trials: Sequence[Trial]) -> bool:
    """Whether lines were read as upright text is."""
    return mean_confidence(trials) >= _SURE


def is_better(other: Sequence[Trial], trials: Sequence[Trial]) -> bool:
    """Whether the same lines read the other way, in the same order, are plainly better; few characters tell nothing."""
    wins: NDArray[np.bool_] = np.array([a.confidence > b.confidence for a, b in zip(other, trials, strict=True)], np.bool_)
    return (
        sum(trial.characters for trial in other) >= _LEAST_CHARACTERS
        and mean_confidence(other) >= mean_confidence(trials) + _BETTER
        and bool(wins.mean() >= _BETTER_LINES)
    )


def mean_confidence(trials: Sequence[Trial]) -> float:
    """Of all characters; 0 when there are none."""
    characters = sum(trial.characters for trial in trials)
    return sum(trial.characters * trial.confidence for trial in trials) / characters if characters else 0.0


def _size(outline: Outline) -> tuple[float, float]:
    """Width and height, along the line's own sides; of one that bends, those of its quad."""
    return sides_of(outline if len(outline) == 4 else clockwise(tangent_of(outline)))
