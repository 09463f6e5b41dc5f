"""What masks of cells have in common."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.tasks.slides.tissue.cells import by_stripes, grown, spans, stripes


@pytest.mark.parametrize("width", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("share", [0.0, 0.002, 1.0])
def test_spans_hold_all_that_is_set_once_and_little_else(width: int, share: float) -> None:
    mask = np.random.default_rng(width).random((5, width)) < share
    covered = np.zeros(width, np.int64)
    for span in spans(mask):
        assert 0 <= span.start < span.stop <= width
        assert mask[:, span].any()
        covered[span] += 1
    assert (covered[mask.any(axis=0)] == 1).all()
    assert covered.max() <= 1
    # Of columns far from what is set there is none.
    set_columns = np.flatnonzero(mask.any(axis=0))
    assert all(np.abs(set_columns - column).min() < 64 for column in np.flatnonzero(covered))


@pytest.mark.parametrize("rows", [0, 1, 128, 129, 256, 300, 1000])
def test_what_stripes_give_is_in_their_order_whoever_worked_on_them(rows: int) -> None:
    assert [(stripe.start, stripe.stop) for stripe in stripes(rows)] == by_stripes(rows, lambda stripe: (stripe.start, stripe.stop))


@pytest.mark.parametrize("shape", [(1, 50), (128, 1), (129, 40), (400, 60), (700, 333)])
@pytest.mark.parametrize("density", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("least_share", [0.0, 0.2])
def test_what_grows_is_as_if_all_regions_were_numbered_together(shape: tuple[int, int], density: float, least_share: float) -> None:
    random = np.random.default_rng(shape[0])
    likely = random.random(shape) < density
    # A line that goes back and forth through all rows hangs together by many stripes' edges.
    likely[:, ::7] |= np.arange(shape[0])[:, None] % 41 > 0
    sure = likely & (random.random(shape) < 0.02)
    count, labels = cv2.connectedComponents((sure | likely).view(np.uint8), connectivity=8)
    of_sure, of_all = np.bincount(labels[sure], minlength=count), np.bincount(labels.reshape(-1), minlength=count)
    kept = (of_sure > 0) & (of_sure >= least_share * of_all)
    kept[0] = False
    assert np.array_equal(sure | kept[labels], grown(sure.copy(), likely.copy(), least_share))


def test_a_region_that_winds_through_all_stripes_grows_from_one_cell() -> None:
    likely = np.zeros((1000, 200), np.bool_)
    likely[:, ::4] = True
    likely[0, 2::8] = likely[0, 1::8] = likely[0, 3::8] = True
    likely[-1, 6::8] = likely[-1, 5::8] = likely[-1, 7::8] = True
    sure = np.zeros_like(likely)
    sure[500, 0] = True
    alone = np.zeros_like(likely)
    expected = likely.copy()
    assert np.array_equal(expected, grown(sure, likely.copy()))
    assert not grown(alone, likely.copy()).any()
