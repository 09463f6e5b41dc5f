"""Blur of the tiles of a tile model, where a tile has blocks to judge by and where it has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference_server.engine.port import Tensors
from inference_server.tasks.slides.checkpoints import Part, pack, unpack
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.kinds.tile_sharpness import TileSharpness
from inference_server.tasks.slides.tiling import Tile


def passed_on(kept: Tensors) -> Tensors:
    """As a part of a checkpoint brings it back."""
    part = Part(fingerprint=b"", cells=None, batches=(0,), engines=("e",), kept=kept, read=(), unreadable=())
    return unpack(pack(part)).kept


# A block has 32 px where a pixel has 0.25 µm, 64 where it has 0.125.
@pytest.mark.parametrize(("size", "mpp", "judged"), [(16, 0.25, False), (32, 0.125, False), (63, 0.125, False), (32, 0.25, True)])
def test_a_tile_smaller_than_a_block_of_blur_has_no_share_of_it(size: int, mpp: float, judged: bool) -> None:
    plan = AnalysisPlan(model="m", outputs=(), mpp=mpp, tile_size=size, halo=0, cell=size, least_tissue=0.0, batch=2, learned_weights=False)
    slide: Any = SimpleNamespace(tissue=SimpleNamespace(mask=np.ones((1, 2), np.bool_)), grid=SimpleNamespace(width=2 * size, height=size))
    sharpness = TileSharpness(slide, plan)
    tiles = [Tile(x=x, y=0, size=size, tissue=1.0) for x in (0, size)]
    pixels = np.random.default_rng(1).integers(0, 255, (2, size, size, 3)).astype(np.uint8)
    sharpness.put(tiles, passed_on(sharpness.of(pixels)))
    figures = sharpness.figures(tiles)

    assert np.all(figures["sharpness"] > 10)
    np.testing.assert_array_equal([0.0, 0.0] if judged else [np.nan, np.nan], figures["blurred_share"])


def test_tiles_of_one_call_do_not_see_the_blur_of_each_other() -> None:
    """Of a blurred tile and a sharp one that are judged together, in the order of which blocks at their edges would meet."""
    size, mpp = 64, 0.5
    plan = AnalysisPlan(model="m", outputs=(), mpp=mpp, tile_size=size, halo=0, cell=16, least_tissue=0.0, batch=4, learned_weights=False)
    mask = np.ones((4, 16), np.bool_)
    mask[:, 9:] = False
    slide: Any = SimpleNamespace(tissue=SimpleNamespace(mask=mask), grid=SimpleNamespace(width=4 * size, height=size))
    sharpness = TileSharpness(slide, plan)
    tiles = [Tile(x=x * size, y=0, size=size, tissue=1.0) for x in range(4)]
    sharp = np.random.default_rng(1).integers(0, 255, (size, size, 3)).astype(np.uint8)
    flat = np.full_like(sharp, 200)
    sharpness.put(tiles, passed_on(sharpness.of(np.stack([sharp, flat, sharp, flat]))))

    # The third has tissue in its first column of cells alone, and the last none.
    np.testing.assert_array_equal([0.0, 1.0, 0.0, np.nan], sharpness.figures(tiles)["blurred_share"])
