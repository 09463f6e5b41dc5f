"""Overlays, pixel by pixel."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from inference_server.tasks.slides.findings import Heat
from inference_server.tasks.slides.outputs import rendering
from inference_server.tasks.slides.tissue.values import TissuePlane


@pytest.mark.parametrize(("cell", "times"), [(1, 4.0), (1, 64.0), (8, 1.5), (8, 0.5), (8, 0.33)])
def test_beside_what_was_analysed_glass_is_not_darkened(cell: int, times: float) -> None:
    """Cells of the heat's values are repeated `cell` times, and the picture is `times` as large as the heat."""
    shown = np.full((5, 6), np.nan)
    shown[1:4, 2:5] = 1.0
    shown[2, 3] = np.nan
    values = shown.repeat(cell, axis=0).repeat(cell, axis=1)
    rows, columns = (round(side * times) for side in values.shape)
    heat = Heat(values=values, scale=(times, times), top=1.0)
    png = rendering.overlay(np.full((rows, columns, 3), 255, np.uint8), (1.0, 1.0), 2.0, heat, np.empty((0, 2)))
    overlay = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    # White, the last colour (252, 255, 164), and what lies between them; a level for rounding.
    assert overlay[..., :2].min() >= 251
    tile = cell * times
    middle = overlay[int(1.5 * tile), int(2.5 * tile)]
    assert middle[2] < 200
    assert (overlay[: int(tile / 2)] == 255).all()


# Larger than pictures are, along one side or both, and no whole number of stripes.
@pytest.mark.parametrize("shape", [(2500, 300), (700, 2900), (2111, 2333)])
def test_a_large_heatmap_is_what_pillow_makes_of_all_its_cells_together(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(7)
    # Of the two colours at the ends, whose bytes are known, in patches and alone.
    kinds = np.where(random.random(shape) < 0.5, random.integers(0, 3, shape), 0)
    kinds[: shape[0] // 2] = 0
    heat = Heat(values=np.array([np.nan, 0.0, 1.0])[kinds], scale=(32.0, 32.0), top=1.0)
    cells = np.array([(0, 0, 0, 0), (0, 0, 4, 255), (252, 255, 164, 255)], np.uint8)[kinds]
    size = tuple(max(round(side * 2048 / max(shape)), 1) for side in reversed(shape))
    expected = np.asarray(Image.fromarray(cells, "RGBA").resize((size[0], size[1]), Image.Resampling.BOX))
    found = np.asarray(Image.open(io.BytesIO(rendering.heatmap(heat))))
    np.testing.assert_array_equal(expected, found)


def test_pictures_of_values_beside_which_nothing_is_held_are_those_of_the_whole_map() -> None:
    random = np.random.default_rng(8)
    mask = random.random((2100, 500)) < 0.2
    values = random.random(np.count_nonzero(mask)).astype(np.float32)
    whole = np.full(mask.shape, np.nan, np.float32)
    whole[mask] = values
    thumbnail = random.integers(0, 256, (1050, 250, 3), np.uint8)
    pictures = []
    for each in (whole, TissuePlane(mask, values, beside=np.nan)):
        heat = Heat(values=each, scale=(32.0, 32.0), top=0.8)
        pictures.append((rendering.heatmap(heat), rendering.overlay(thumbnail, (64.0, 64.0), 16.0, heat, np.empty((0, 2)))))
    assert pictures[0] == pictures[1]


def test_a_heatmap_is_made_without_its_cells_colours_side_by_side() -> None:
    values = np.full((6000, 2000), 0.5, np.float32)
    heat = Heat(values=values, scale=(32.0, 32.0), top=1.0)
    tracemalloc.start()
    rendering.heatmap(heat)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Four bytes a cell are 48 MB; rows as short as the picture's are a third of it.
    assert 40e6 > peak
