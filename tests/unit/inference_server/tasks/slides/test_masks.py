"""What masks of cells have in common."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.slides.masks import by_stripes, spans, stripes


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
