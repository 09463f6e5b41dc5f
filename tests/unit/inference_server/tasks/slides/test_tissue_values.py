"""What is kept and summed up for tissue cells alone is what it would be on the whole slide."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.slides.densities import percentile
from inference_server.tasks.slides.masks import stripes
from inference_server.tasks.slides.tiling import cell_sums
from inference_server.tasks.slides.tissue_values import TissueValues

# More rows than a stripe has, and no whole number of tiles.
SHAPE = (301, 107)
RANDOM = np.random.default_rng(4)
MASK = RANDOM.random(SHAPE) < 0.3
PLANE = RANDOM.random(SHAPE).astype(np.float32)


def put_all(per_tile: int) -> TissueValues:
    values = TissueValues(MASK, ("plane",), per_tile)
    down, across = (-(-side // per_tile) for side in SHAPE)
    padded = np.pad(PLANE, ((0, down * per_tile - SHAPE[0]), (0, across * per_tile - SHAPE[1])))
    cut = padded.reshape(down, per_tile, across, per_tile).swapaxes(1, 2)
    # Some tiles at a time, in any order.
    for places in np.array_split(RANDOM.permutation(down * across), -(-down * across // 5)):
        rows, columns = np.divmod(places, across)
        values.put(rows.tolist(), columns.tolist(), {"plane": cut[rows, columns]})
    return values


@pytest.mark.parametrize("per_tile", [4, 16, 32, 128])
def test_values_taken_up_tile_by_tile_are_in_reading_order(per_tile: int) -> None:
    assert PLANE[MASK].tolist() == put_all(per_tile)["plane"].tolist()


def test_stripes_with_what_lies_around_them_make_up_the_slide() -> None:
    values = put_all(16)
    whole, tissue = (np.pad(each, 2) for each in (PLANE * MASK, MASK))
    for rows in stripes(SHAPE[0]):
        found = values.around("plane", rows, 2)
        expected = whole[rows.start : rows.stop + 4], tissue[rows.start : rows.stop + 4]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_a_slide_without_tissue_has_no_values() -> None:
    assert 0 == len(TissueValues(np.zeros(SHAPE, bool), ("plane",), 16)["plane"])


def test_cells_are_summed_by_tile_with_the_weights_of_their_rows_and_columns() -> None:
    rows, columns = np.ones(SHAPE[0]), np.ones(SHAPE[1])
    rows[-1], columns[-1] = 0.25, 0.5
    weighted = np.pad(MASK * rows[:, None] * columns, ((0, 3), (0, 5)))
    expected = weighted.reshape(19, 16, 7, 16).sum(axis=(1, 3))
    assert expected.tolist() == cell_sums(MASK, 16, rows=rows, columns=columns).tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 10, 1000])
def test_percentiles_of_counts_are_those_of_the_values(count: int) -> None:
    values = RANDOM.integers(0, 256, count)
    counts = np.bincount(values, minlength=256)
    for percent in (0, 1, 50, 90, 100):
        assert pytest.approx(np.percentile(values, percent), abs=1e-9) == percentile(counts, percent)
