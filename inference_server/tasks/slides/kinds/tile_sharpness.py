"""How sharp each tile of a tile model is, and how much of its tissue is blurred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensors
from inference_server.tasks.slides.findings import AnalysisPlan, Column
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile, places_of
from inference_server.tasks.slides.tissue.focus import REACH, block_edge, blurred_in, blurred_tissue, greens
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
        planes = greens(tiles)
        blurred = blurred_in(planes, halo=self._plan.halo, mpp=self._plan.mpp)
        return {
            "sharpness": np.array([_sharpness(plane) for plane in planes], np.float32),
            "blurred": np.packbits(blurred.reshape(len(tiles), blurred[0].size), axis=1),
        }

    def put(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take up what was kept of them."""
        blocks = self._plan.tile_size // self._block
        bits = np.unpackbits(kept["blurred"].astype(np.uint8, copy=False), axis=1, count=blocks**2).astype(np.bool_)
        by_tile = bits.reshape(len(tiles), blocks, blocks)
        places = places_of(tiles)
        self._sharpness[places] = kept["sharpness"]
        self._blurred[places] = self._shares(tiles, by_tile)

    def figures(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        """Columns of the table of tiles."""
        places = places_of(tiles)
        return {"sharpness": self._sharpness[places], "blurred_share": self._blurred[places]}

    def _shares(self, tiles: Sequence[Tile], blurred: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Of each tile's tissue, by blocks whose centre lies on it; NaN where none does, or the tile is smaller than a block.

        `blurred`: tiles × rows × columns of blocks.
        """
        count, blocks, _ = blurred.shape
        if not blocks:
            return np.full(count, np.nan)
        centres = (np.arange(blocks) + 0.5) * self._block
        corners = np.array([(tile.y, tile.x) for tile in tiles]).reshape(count, 2, 1)
        cells = ((corners + centres) // self._plan.cell).astype(np.int64)
        rows, columns = cells[:, 0, :, None], cells[:, 1, None, :]
        height, width = self._mask.shape
        inside = (rows < height) & (columns < width)
        # One below the other, and so far apart that none sees the blocks of another.
        tissue, marked = np.zeros((2, count, blocks + REACH, blocks), np.bool_)
        tissue[:, :blocks] = self._mask[np.minimum(rows, height - 1), np.minimum(columns, width - 1)] & inside
        marked[:, :blocks] = blurred
        found = blurred_tissue(marked.reshape(-1, blocks), tissue.reshape(-1, blocks)).reshape(tissue.shape)
        every = np.count_nonzero(tissue, axis=(1, 2))
        shares = np.full(count, np.nan)
        np.divide(np.count_nonzero(found, axis=(1, 2)), every, out=shares, where=every > 0)
        return shares


def _sharpness(green: NDArray[np.uint8]) -> float:
    """Mean |Laplacian|, in grey levels."""
    return float(cv2.norm(cv2.Laplacian(green, cv2.CV_16S, ksize=1), cv2.NORM_L1)) / green.size
