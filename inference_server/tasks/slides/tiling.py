"""Which tiles of a slide are analysed, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.values import Level

# Tiles are visited in stripes so high, in columns so wide within each, in pixels. Neighbours then find the stored tiles that they share
# still in the cache, whatever the slide's width: stored tiles are read twice only where two stripes meet, and there only where more tissue
# lies side by side than the cache holds.
_STRIPE, _COLUMN = 8192, 1024
# Edge from which tiles are large, in pixels that are read: their columns do not fit into what usual ones may take, and what is kept of
# them grows as what each call takes does.
_LARGE = 2048
# Of one slide, up to 370 bytes each while they are listed.
MOST_TILES = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
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


def tissue_tiles(mask: NDArray[np.bool_], *, cell: int, size: int, least: float, most: tuple[int, int] | None = None) -> list[Tile]:
    """The tiles of `size` px with more tissue than the share `least`; a cell of the mask is `cell` px. `most`: as for `cell_sums`.

    Raises `InvalidSlide` for more of them than memory is kept for.
    """
    shares = cell_sums(mask, cell=cell, size=size, most=most) / size**2
    if (count := np.count_nonzero(shares > least)) > MOST_TILES:
        raise InvalidSlide(
            f"{count:,} tiles of {size} px lie on tissue; at most {MOST_TILES:,} are analysed. Take a model of larger tiles."
        )
    chosen = [(int(row), int(column)) for row, column in np.argwhere(shares > least)]
    high, wide = max(_STRIPE // size, 1), max(_COLUMN // size, 1)
    chosen.sort(key=lambda place: (place[0] // high, place[1] // wide, place))
    return [Tile(x=column * size, y=row * size, size=size, tissue=float(shares[row, column])) for row, column in chosen]


def cell_sums(
    values: NDArray[np.number] | NDArray[np.bool_],
    *,
    cell: int,
    size: int,
    most: tuple[int, int] | None = None,
    covered: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Values of cells times the pixels that they share with each tile, by row and column of the tile.

    `cell`, `size`: edge of a cell and of a tile in pixels, both counted from the slide's corner, so that a cell may lie in several tiles;
    `most`: height and width beyond which no tile begins, in pixels; `covered`: those beyond which pixels do not count.
    """
    return np.array(list(cell_lines(values, cell=cell, size=size, most=most, covered=covered)))


def cell_lines(
    values: NDArray[np.number] | NDArray[np.bool_],
    *,
    cell: int,
    size: int,
    most: tuple[int, int] | None = None,
    covered: tuple[float, float] | None = None,
) -> Iterator[NDArray[np.float64]]:
    """The rows of `cell_sums`, one at a time."""
    down, across = (
        _pieces(count, cell, size, most[axis] if most else None, covered[axis] if covered else None)
        for axis, count in enumerate(values.shape)
    )
    for first, end in zip(down.tiles, [*down.tiles[1:], len(down.cells)], strict=True):
        stripe, pixels = values[down.cells[first] : down.cells[end - 1] + 1], down.pixels[first:end]
        # Of whole cells, which most are, the sum is ten times as fast without weights.
        if (pixels == pixels[0]).all():
            line = np.sum(stripe, axis=0, dtype=np.float64) * pixels[0]
        else:
            line = np.sum(stripe * pixels[:, None], axis=0, dtype=np.float64)
        yield np.add.reduceat(line[across.cells] * across.pixels, across.tiles)


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """Pieces of one axis, each in one cell and in one tile."""

    # The cell of each, and how many pixels of it count.
    cells: NDArray[np.int64]
    pixels: NDArray[np.float64]
    # The first piece of each tile.
    tiles: NDArray[np.int64]


def _pieces(count: int, cell: int, size: int, most: int | None, covered: float | None) -> _Pieces:
    borders = np.arange(0, count * cell if most is None else min(count * cell, most), size)
    end = min(count * cell, len(borders) * size)
    edges = np.union1d(np.arange(0, end, cell), np.append(borders, end))
    starts, ends = edges[:-1], edges[1:]
    pixels = np.clip((ends if covered is None else np.minimum(ends, covered)) - starts, 0, None)
    return _Pieces(cells=starts // cell, pixels=pixels.astype(np.float64), tiles=np.searchsorted(starts, borders))


def places_of(tiles: Sequence[Tile]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row and the column of each tile among all."""
    return np.array([tile.y // tile.size for tile in tiles], np.int64), np.array([tile.x // tile.size for tile in tiles], np.int64)
