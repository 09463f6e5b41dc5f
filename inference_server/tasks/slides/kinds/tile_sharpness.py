"""How sharp each tile of a tile model is, and how much of its tissue is blurred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensors
from inference_server.tasks.slides.findings import AnalysisPlan, Column
from inference_server.tasks.slides.focus import block_edge, blurred_in, blurred_tissue
from inference_server.tasks.slides.masks import Mask
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile, places_of
from inference_server.tasks.slides.values import Pixels


class TileSharpness:
    """Of the tiles of one slide."""

    def __init__(self, slide: Slide, plan: AnalysisPlan) -> None:
        """`plan`: by which the slide was surveyed."""
        self._mask = slide.tissue.mask
        self._plan = plan
        self._block = block_edge(plan.mpp)
        shape = -(-slide.grid.height // plan.tile_size), -(-slide.grid.width // plan.tile_size)
        # By row and column of the tile; NaN where there was none, or no tissue in it.
        self._sharpness, self._blurred = (np.full(shape, np.nan, np.float32) for _ in range(2))

    def of(self, tiles: Pixels) -> Tensors:
        """What is kept of some tiles: each one's `sharpness`, of its green channel, and which of its blocks are `blurred`, a bit each."""
        sharpness, blurred = zip(*(self._judged(cv2.extractChannel(tile, 1)) for tile in tiles), strict=True)
        return {"sharpness": np.array(sharpness, np.float32), "blurred": np.stack(blurred)}

    def put(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take up what was kept of them."""
        blocks = self._plan.tile_size // self._block
        bits = np.unpackbits(kept["blurred"].astype(np.uint8, copy=False), axis=1, count=blocks**2).astype(np.bool_)
        by_tile = bits.reshape(len(tiles), blocks, blocks)
        places = places_of(tiles)
        self._sharpness[places] = kept["sharpness"]
        self._blurred[places] = [self._share(tile, blurred) for tile, blurred in zip(tiles, by_tile, strict=True)]

    def figures(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        """Columns of the table of tiles."""
        places = places_of(tiles)
        return {"sharpness": self._sharpness[places], "blurred_share": self._blurred[places]}

    def _judged(self, green: NDArray[np.uint8]) -> tuple[float, NDArray[np.uint8]]:
        return _sharpness(green), np.packbits(blurred_in(green, halo=self._plan.halo, mpp=self._plan.mpp))

    def _share(self, tile: Tile, blurred: Mask) -> float:
        """Of a tile's tissue, by blocks whose centre lies on it; NaN where none does, or the tile is smaller than a block."""
        centres = (np.arange(len(blurred)) + 0.5) * self._block
        rows, columns = (((corner + centres) // self._plan.cell).astype(np.int64) for corner in (tile.y, tile.x))
        inside = (rows < self._mask.shape[0])[:, None] & (columns < self._mask.shape[1])
        last = np.array(self._mask.shape) - 1
        tissue = self._mask[np.ix_(np.minimum(rows, last[0]), np.minimum(columns, last[1]))] & inside
        count = np.count_nonzero(tissue)
        return float(np.count_nonzero(blurred_tissue(blurred, tissue)) / count) if count else np.nan


def _sharpness(green: NDArray[np.uint8]) -> float:
    """Mean |Laplacian|, in grey levels."""
    return float(cv2.norm(cv2.Laplacian(green, cv2.CV_16S, ksize=1), cv2.NORM_L1)) / green.size
