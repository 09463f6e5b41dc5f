"""Which tiles of a slide are analysed, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.values import Level

# Tiles are visited in stripes so high, in columns so wide within each, in pixels. Neighbours then find the stored tiles that they share
# still in the cache, whatever the slide's width: stored tiles are read twice only where two stripes meet, and there only where more tissue
# lies side by side than the cache holds.
_STRIPE, _COLUMN = 8192, 1024
# Edge from which tiles are large, in pixels that are read: their columns do not fit into what usual ones may take, and what is kept of
# them grows as what each call takes does.
_LARGE = 2048


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The core of one tile; an analysis may read a halo around it."""

    # Pixels of the analysis grid.
    x: int
    y: int
    size: int
    # Share of the tile that is tissue.
    tissue: float


def bytes_to_keep(stored: Level, step: tuple[float, float], *, size: int, halo: int, most: int) -> int:
    """Bytes of a level to keep, so that stored tiles are read once in a stripe: those of a column, and half as many for what is under way.

    `step`: pixels of the level per pixel of the analysis; `size`, `halo`: of a tile, in pixels of the analysis; `most`: of usual tiles.
    """
    edge, high, wide = size + 2 * halo, max(_STRIPE, size) + 2 * halo, max(_COLUMN, size) + 2 * halo
    column = (high * step[1] + 2 * stored.tile_height) * (wide * step[0] + 2 * stored.tile_width) * 3
    return int(min(column * 1.5, most * max(edge * step[0] * edge * step[1] / _LARGE**2, 1)))


def tissue_tiles(mask: NDArray[np.bool_], *, cell: int, size: int, least: float) -> list[Tile]:
    """The tiles of `size` px with more tissue than the share `least`; a cell of the mask is `cell` px, and divides `size`."""
    per_tile = size // cell
    shares = cell_sums(mask, per_tile) / per_tile**2
    chosen = [(int(row), int(column)) for row, column in np.argwhere(shares > least)]
    high, wide = max(_STRIPE // size, 1), max(_COLUMN // size, 1)
    chosen.sort(key=lambda place: (place[0] // high, place[1] // wide, place))
    return [Tile(x=column * size, y=row * size, size=size, tissue=float(shares[row, column])) for row, column in chosen]


def cell_sums(
    values: NDArray[np.number] | NDArray[np.bool_],
    per_tile: int,
    *,
    rows: NDArray[np.float64] | None = None,
    columns: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sums over the cells of each tile, by row and column of the tile.

    `per_tile`: cells along a tile's edge; `rows`, `columns`: weights of the cells' rows and columns.
    """
    starts = [np.arange(0, side, per_tile) for side in values.shape]
    lines = np.empty((len(starts[0]), values.shape[1]))
    for line, first in zip(lines, starts[0].tolist(), strict=True):
        stripe = values[first : first + per_tile]
        np.sum(stripe if rows is None else stripe * rows[first : first + per_tile, None], axis=0, dtype=np.float64, out=line)
    sums: NDArray[np.float64] = np.add.reduceat(lines if columns is None else lines * columns, starts[1], axis=1)
    return sums


def places_of(tiles: Sequence[Tile]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row and the column of each tile among all."""
    return np.array([tile.y // tile.size for tile in tiles], np.int64), np.array([tile.x // tile.size for tile in tiles], np.int64)
