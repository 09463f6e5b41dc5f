"""Connected pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.tasks.documents.images.spots import bounds_of, spots_of


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


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3])
def test_bounds_are_those_of_the_spots_few_or_many(share: float) -> None:
    marked = (np.random.default_rng(2).random((700, 900)) < share).astype(np.uint8)
    assert sorted(spots_of(marked)[:, :4].tolist()) == sorted(bounds_of(marked).tolist())


def test_a_spot_within_the_hole_of_another_has_bounds_of_its_own() -> None:
    marked = np.zeros((30, 40), np.uint8)
    cv2.rectangle(marked, (0, 0), (39, 29), 1, 2)
    cv2.rectangle(marked, (10, 8), (30, 20), 1, 1)
    marked[14, 20] = 1
    assert [[0, 0, 40, 30], [10, 8, 21, 13], [20, 14, 1, 1]] == sorted(bounds_of(marked).tolist())


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 7)])
def test_pictures_without_spots_have_none(shape: tuple[int, int]) -> None:
    nothing = np.zeros(shape, np.uint8)
    assert ((0, 5), (0, 4)) == (spots_of(nothing).shape, bounds_of(nothing).shape)
