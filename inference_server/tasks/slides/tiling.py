"""Which tiles of a slide are analysed, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Tiles are visited in blocks of so many by so many, so that neighbours find the stored tiles that they share still in the cache.
_BLOCK = 4


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The core of one tile; an analysis may read a halo around it."""

    # Pixels of the analysis grid.
    x: int
    y: int
    size: int
    # Share of the tile that is tissue.
    tissue: float


def tissue_tiles(mask: NDArray[np.bool_], *, cell: int, size: int, least: float) -> list[Tile]:
    """The tiles of `size` px with more tissue than the share `least`; a cell of the mask is `cell` px, and divides `size`."""
    per_tile = size // cell
    rows, columns = -(-mask.shape[0] // per_tile), -(-mask.shape[1] // per_tile)
    padded = np.zeros((rows * per_tile, columns * per_tile), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    shares = padded.reshape(rows, per_tile, columns, per_tile).mean(axis=(1, 3))
    chosen = [(int(row), int(column)) for row, column in np.argwhere(shares > least)]
    chosen.sort(key=lambda place: (place[0] // _BLOCK, place[1] // _BLOCK, place))
    return [Tile(x=column * size, y=row * size, size=size, tissue=float(shares[row, column])) for row, column in chosen]
