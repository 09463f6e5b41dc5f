"""The picture below the overlay, as it is made from a slide's cells."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inference_server.tasks.slides.grid import choose_grid
from inference_server.tasks.slides.outputs import thumbnails
from inference_server.tasks.slides.values import Level, SlideFacts


def facts_of(width: int, height: int) -> SlideFacts:
    level = Level(width=width, height=height, downsample_x=1.0, downsample_y=1.0, tile_width=256, tile_height=256)
    return SlideFacts(uri="", vendor="", reader="", levels=(level,), mpp_x=0.5, mpp_y=0.5, objective_power=None, icc_profile=b"")


@pytest.mark.parametrize(("width", "height"), [(40_000, 33_000), (100_000, 3_000), (9_000, 140_000)])
def test_a_thumbnail_is_what_pillow_makes_of_all_cells_together(width: int, height: int) -> None:
    grid = choose_grid(facts_of(width, height), (0.5, 0.5), 0.5)
    cells = np.random.default_rng(9).integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
    found = thumbnails.from_cells(grid, cells, 16)
    assert found is not None
    times = -(-max(cells.shape) // 2048)
    np.testing.assert_array_equal(np.asarray(Image.fromarray(cells).reduce(times)), found.pixels)
    assert (16.0 * times, 16.0 * times) == found.scale
