"""Overlays, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from inference_server.tasks.slides.findings import Heat
from inference_server.tasks.slides.outputs import rendering


@pytest.mark.parametrize("tile", [4, 64])
def test_beside_what_was_analysed_glass_is_not_darkened(tile: int) -> None:
    values = np.full((5, 6), np.nan)
    values[1:4, 2:5] = 1.0
    values[2, 3] = np.nan
    glass = np.full((5 * tile, 6 * tile, 3), 255, np.uint8)
    png = rendering.overlay(glass, (1.0, 1.0), 2.0, Heat(values=values, scale=(tile, tile), top=1.0), np.empty((0, 2)))
    overlay = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    # White, the last colour (252, 255, 164), and what lies between them; a level for rounding.
    assert overlay[..., :2].min() >= 251
    middle = overlay[tile + tile // 2, 2 * tile + tile // 2]
    assert middle[2] < 200
    assert (overlay[: tile // 2] == 255).all()
