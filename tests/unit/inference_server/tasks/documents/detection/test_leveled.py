"""Pages that bend, made level for the detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inference_server.tasks.documents.detection.leveled import leveled
from inference_server.tasks.documents.values import Outline

WIDTH, HEIGHT, LINE = 1000, 800, 20


def wave(x: np.ndarray) -> np.ndarray:
    return 30 * np.sin(2 * np.pi * x / WIDTH)


def level(x: np.ndarray) -> np.ndarray:
    return 0 * x


def lines(drop: Callable[[np.ndarray], np.ndarray]) -> list[Outline]:
    """Halves of lines, as a detector finds them that loses their middle."""
    found = []
    for top in range(100, 700, 40):
        for left, right in ((80, 420), (560, 900)):
            x = np.linspace(left, right, 13)
            y = top + drop(x)
            found.append(np.concatenate([np.stack([x, y], axis=1), np.stack([x, y + LINE], axis=1)[::-1]]).astype(np.float32))
    return found


def page(drop: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for top in range(100, 700, 40):
        for x in range(80, 900):
            image[round(top + float(drop(np.array(x))) + 8) : round(top + float(drop(np.array(x))) + 12), x] = 0
    return image


@pytest.mark.parametrize("most_short_side", [1440, 400])
def test_lines_of_a_bent_page_become_level_and_are_taken_back(most_short_side: int) -> None:
    made = leveled(page(wave), lines(wave), most_short_side)
    assert made is not None
    scale = min(1.0, most_short_side / HEIGHT)
    dark = made.page[:, :, 0] < 128
    rows = [np.flatnonzero(dark[:, round(x * scale)]) for x in (100, 300, 500, 700, 880)]
    middle = float(np.median(np.concatenate([row[: len(row) // 15] for row in rows])))
    assert max(abs(float(row[: len(row) // 15].mean()) - middle) for row in rows) < 6 * scale
    left, right, top, bottom = (side * scale for side in (80, 900, middle / scale - 10, middle / scale + 10))
    back = made.back(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32))
    x = back[:, 0]
    sides = np.repeat([-10, 10], len(back) // 2)
    assert np.abs(back[:, 1] - (110 + wave(x) + sides)).max() < 8
    assert (80, 900) == pytest.approx((float(x.min()), float(x.max())), abs=1)


def test_a_page_without_a_bend_is_left_alone() -> None:
    assert leveled(page(level), lines(level), 1440) is None
    assert leveled(page(wave), [], 1440) is None
