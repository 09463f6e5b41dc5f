"""Overlays, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from inference_server.tasks.slides.findings import Heat
from inference_server.tasks.slides.outputs import rendering


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
