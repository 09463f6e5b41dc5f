"""Which tiles of a slide are analysed, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Tiles are visited in stripes so high, in columns so wide within each, in pixels. Neighbours then find the stored tiles that they share
# still in the cache, whatever the slide's width: stored tiles are read twice only where two stripes meet.
_STRIPE, _COLUMN = 8192, 1024


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
    shares = cell_sums(mask, per_tile) / per_tile**2
    chosen = [(int(row), int(column)) for row, column in np.argwhere(shares > least)]
    high, wide = max(_STRIPE // size, 1), max(_COLUMN // size, 1)
    chosen.sort(key=lambda place: (place[0] // high, place[1] // wide, place))
    return [Tile(x=column * size, y=row * size, size=size, tissue=float(shares[row, column])) for row, column in chosen]


def cell_sums(values: NDArray[np.generic], per_tile: int) -> NDArray[np.float64]:
    """Sums over the cells of each tile, by row and column of the tile; `per_tile`: cells along its edge."""
    rows, columns = -(-values.shape[0] // per_tile), -(-values.shape[1] // per_tile)
    padded = np.zeros((rows * per_tile, columns * per_tile))
    padded[: values.shape[0], : values.shape[1]] = values
    sums: NDArray[np.float64] = padded.reshape(rows, per_tile, columns, per_tile).sum(axis=(1, 3))
    return sums


def places_of(tiles: Sequence[Tile]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row and the column of each tile among all."""
    return np.array([tile.y // tile.size for tile in tiles], np.int64), np.array([tile.x // tile.size for tile in tiles], np.int64)
