"""What is kept and summed up for tissue cells alone is what it would be on the whole slide."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.slides.tiling import cell_sums
from inference_server.tasks.slides.tissue.cells import stripes
from inference_server.tasks.slides.tissue.densities import percentile
from inference_server.tasks.slides.tissue.values import TissuePlane, TissueValues

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


@pytest.mark.parametrize("rows", [slice(0, 301), slice(0, 1), slice(250, 301), slice(290, 999)])
def test_some_rows_of_a_map_are_those_of_the_whole(rows: slice) -> None:
    plane = TissuePlane(MASK, PLANE[MASK], beside=np.nan)
    assert SHAPE == plane.shape
    assert np.array_equal(np.where(MASK, PLANE, np.nan).astype(np.float32)[rows], plane[rows], equal_nan=True)


def test_marks_are_taken_up_beside_values_and_nothing_is_held_when_they_are_forgotten() -> None:
    values = TissueValues(MASK, ("plane",), 301, marks=("bright",))
    values.put([0], [0], {"plane": np.pad(PLANE, ((0, 0), (0, 194)))[None], "bright": np.pad(PLANE > 0.5, ((0, 0), (0, 194)))[None]})
    assert np.array_equal(MASK & (PLANE > 0.5), values.marked("bright")[0:301])
    values.forget()
    with pytest.raises(KeyError):
        values["plane"]


def test_a_slide_without_tissue_has_no_values() -> None:
    assert 0 == len(TissueValues(np.zeros(SHAPE, bool), ("plane",), 16)["plane"])


@pytest.mark.parametrize("size", [64, 227, 254, 331, 16, 5])
def test_cells_are_summed_by_tile_as_their_pixels_are_however_tiles_lie_on_them(size: int) -> None:
    cell, most, covered = 16, (16 * SHAPE[0] - 9, 16 * SHAPE[1] - 3), (16 * SHAPE[0] - 12, 16 * SHAPE[1] - 8)
    pixels = np.repeat(np.repeat(MASK, cell, axis=0), cell, axis=1).astype(np.int64)
    # Where tiles begin beyond the grid there are none, and of what lies beyond the slide nothing counts.
    kept = [-(-side // size) * size for side in most]
    whole = np.pad(pixels, [(0, max(edge - side, 0)) for edge, side in zip(kept, pixels.shape, strict=True)])[: kept[0], : kept[1]]
    on_slide = whole.copy()
    on_slide[covered[0] :], on_slide[:, covered[1] :] = 0, 0
    for expected, found in (
        (whole, cell_sums(MASK, cell=cell, size=size, most=most)),
        (on_slide, cell_sums(MASK, cell=cell, size=size, most=most, covered=covered)),
    ):
        by_tile = expected.reshape(kept[0] // size, size, kept[1] // size, size).sum(axis=(1, 3))
        assert by_tile.tolist() == found.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 10, 1000])
def test_percentiles_of_counts_are_those_of_the_values(count: int) -> None:
    values = RANDOM.integers(0, 256, count)
    counts = np.bincount(values, minlength=256)
    for percent in (0, 1, 50, 90, 100):
        assert pytest.approx(np.percentile(values, percent), abs=1e-9) == percentile(counts, percent)
