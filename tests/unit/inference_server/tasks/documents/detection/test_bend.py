"""The bend of a page, told by the slopes of its lines."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.detection.bend import Slopes, bend_of

HEIGHT = 20.0


def lines(slope: object, count: int = 60, noise: float = 0.002) -> Slopes:
    """Lines all over a page of 1000 x 1400 pixels; `slope` gives that at x, y."""
    draw = np.random.default_rng(5)
    x, y, length = draw.uniform(50, 950, count), draw.uniform(50, 1350, count), draw.uniform(50, 400, count)
    return Slopes(x=x, y=y, slope=slope(x, y) + draw.normal(0, noise, count), length=length)  # type: ignore[operator]


def curved(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of y = 28 sin(πx / 1000): a page that rises in its middle."""
    return 0.028 * np.pi * np.cos(np.pi * x / 1000)


def aside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Seen from the side: level in the middle, more and more aslant above and below."""
    return (y - 700) / 700 * 0.08


@pytest.mark.parametrize(("slope", "drop"), [(curved, lambda x, y: 28 * np.sin(np.pi * x / 1000)), (aside, lambda x, y: aside(x, y) * x)])
def test_a_bend_is_told_to_a_fifth_of_the_texts_height(slope: object, drop: object) -> None:
    told = lines(slope)
    bend = bend_of(told, HEIGHT)
    assert bend is not None
    # Rows are what counts: how far right and left ends of one lie apart.
    y = np.linspace(100, 1300, 9)
    left, right = np.full(9, 100.0), np.full(9, 900.0)
    expected = drop(right, y) - drop(left, y)  # type: ignore[operator]
    middle = drop(np.full(9, 500.0), y) - drop(left, y)  # type: ignore[operator]
    assert HEIGHT / 5 > np.abs(bend.drop(right, y) - bend.drop(left, y) - expected).max()
    assert HEIGHT / 5 > np.abs(bend.drop(np.full(9, 500.0), y) - bend.drop(left, y) - middle).max()


def test_a_flat_page_has_none() -> None:
    assert bend_of(lines(lambda x, y: np.zeros_like(x)), HEIGHT) is None


def test_a_few_stamps_bend_no_page() -> None:
    assert bend_of(lines(lambda x, y: np.where(x > 800, 0.3, 0.0)), HEIGHT) is None


def test_stamps_on_a_bent_page_leave_its_bend() -> None:
    bend = bend_of(lines(lambda x, y: np.where((x > 800) & (y < 400), 0.4, curved(x, y))), HEIGHT)
    assert bend is not None
    ends = bend.drop(np.array([100.0, 500.0]), np.array([1000.0, 1000.0]))
    assert HEIGHT / 4 > abs(ends[1] - ends[0] - 28 * (1 - np.sin(0.1 * np.pi)))


def test_a_few_lines_tell_nothing() -> None:
    assert bend_of(lines(curved, count=8), HEIGHT) is None
