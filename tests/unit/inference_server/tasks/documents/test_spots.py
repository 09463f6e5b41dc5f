"""Connected pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.tasks.documents.spots import spots_of


def test_a_spot_has_its_bounds_and_pixels() -> None:
    marked = np.zeros((20, 30), np.uint8)
    marked[2:5, 3:10] = 1
    marked[5, 10] = 1
    marked[12, 20] = 255
    assert [[3, 2, 8, 4, 22], [20, 12, 1, 1, 1]] == spots_of(marked).tolist()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_pictures_of_many_spots_are_counted_as_with_long_numbers(share: float) -> None:
    marked = (np.random.default_rng(1).random((700, 900)) < share).astype(np.uint8)
    _, _, expected, _ = cv2.connectedComponentsWithStats(marked, connectivity=8, ltype=cv2.CV_32S)
    assert sorted(expected[1:].tolist()) == sorted(spots_of(marked).tolist())


def test_more_spots_than_short_numbers_hold_are_all_found() -> None:
    marked = np.zeros((600, 600), np.uint8)
    marked[::2, ::2] = 1
    assert 300 * 300 == len(spots_of(marked))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 7)])
def test_pictures_without_spots_have_none(shape: tuple[int, int]) -> None:
    assert (0, 5) == spots_of(np.zeros(shape, np.uint8)).shape
