"""Lines that bend: cut out along their curve, and told with it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.tasks.documents.detection.curved import parts_of, tangent_of
from inference_server.tasks.documents.recognition.recogniser import crops_of
from inference_server.tasks.documents.values import Outline

LEFT, RIGHT, TOP, HEIGHT = 50, 650, 200, 40


def rise(x: np.ndarray) -> np.ndarray:
    return 60 * np.sin(np.pi * (x - LEFT) / (RIGHT - LEFT))


def outline() -> Outline:
    x = np.linspace(LEFT, RIGHT, 17)
    y = TOP - rise(x)
    return np.concatenate([np.stack([x, y], axis=1), np.stack([x, y + HEIGHT], axis=1)[::-1]]).astype(np.float32)


def page() -> np.ndarray:
    """A line of bars that follows the curve, a stroke in its middle all along."""
    image = np.full((400, 700, 3), 255, np.uint8)
    x = np.arange(LEFT, RIGHT)
    for column, y in zip(x.tolist(), (TOP - rise(x)).tolist(), strict=True):
        image[round(y) + 17 : round(y) + 23, column] = 0
    return image


def turned(points: np.ndarray, quarters: int) -> np.ndarray:
    """Where points of the page lie on the page turned to the left."""
    for _ in range(quarters):
        points = np.stack([points[:, 1], 699 - points[:, 0]], axis=1)
    return points.astype(np.float32)


def test_a_crop_is_straight_along_a_line_that_bends() -> None:
    (crop,) = crops_of(page(), outline())
    assert 48 == crop.image.shape[0]
    rows = [np.flatnonzero(column < 128) for column in crop.image[:, 20:-20, 0].T]
    assert {True} == {abs(dark.mean() - 23.5) < 2.5 for dark in rows}


@pytest.mark.parametrize("height", [40, 90])
def test_a_crop_keeps_the_proportions_of_its_line(height: int) -> None:
    edges = outline()
    edges[17:, 1] += height - HEIGHT
    (crop,) = crops_of(page(), edges)
    length = np.linalg.norm(np.diff(edges[:17], axis=0), axis=1).sum()
    assert length * 48 / height == pytest.approx(crop.width, rel=0.01)


def test_places_of_a_crop_lie_on_the_curve_of_the_page() -> None:
    (crop,) = crops_of(page(), outline())
    found = crop.quad(crop.width * 0.4, crop.width * 0.6)
    x = found[:, 0]
    assert np.abs(found[:, 1] - (TOP - rise(x) + [0, 0, HEIGHT, HEIGHT])).max() < 2
    assert found[0, 0] == pytest.approx(LEFT + 0.4 * (RIGHT - LEFT), abs=8)
    assert np.allclose(outline()[[0, 16, 17, 33]], crop.quad(0, crop.width), atol=0.5)


def test_a_line_that_stands_upright_may_run_either_way() -> None:
    image = np.ascontiguousarray(np.rot90(page()))
    crops = crops_of(image, turned(outline(), 1))
    assert 2 == len(crops)
    (upright,) = crops_of(page(), outline())
    differences = [float(cv2.absdiff(crop.image, upright.image).mean()) for crop in crops if crop.width == upright.width]
    assert min(differences) < 6
    assert max(differences) > 6


def test_parts_are_straight_and_cover_the_line() -> None:
    parts = parts_of(outline())
    assert [LEFT, *(LEFT + 75 * number for number in range(1, 9))] == [round(float(part[0, 0])) for part in parts] + [RIGHT]
    slopes = [float((part[1] - part[0])[1]) for part in parts]
    assert sorted(slopes) == slopes
    assert slopes[0] < 0 < slopes[-1]


def test_the_tangent_is_as_long_and_as_high_as_the_line_and_touches_its_middle() -> None:
    quad = tangent_of(outline())
    assert np.allclose([[LEFT, TOP - 60], [RIGHT, TOP - 60], [RIGHT, TOP - 20], [LEFT, TOP - 20]], quad, atol=1)
