"""The whole of a slide at a low resolution, mended where its small levels are damaged.

One stored tile of a small level shows what hundreds of a large one do. So what a damaged one would show is read from the next finer level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inference_server.tasks.slides.grid import Grid, of_finer_level, read_cells
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.tissue.mask import scan
from inference_server.tasks.slides.values import Pixels

# Left, top, right and bottom, in cells.
_Box = tuple[int, int, int, int]
# Level pixels of a block along each axis that is read at once.
_BLOCK = 1536


async def read(regions: Regions, grid: Grid) -> Pixels:
    """Mean colours of all cells of a coarse grid; white where no level can be decoded. Raises `InvalidSlide`, `Unavailable`."""
    cells = await scan(regions, grid)
    boxes: list[_Box] = [(0, 0, grid.width, grid.height)]
    finer = of_finer_level(regions.facts, grid)
    while finer and (boxes := list(_damaged(regions, grid, boxes))):
        for box in boxes:
            await _read_box(regions, finer, box, cells)
        grid, finer = finer, of_finer_level(regions.facts, finer)
    return cells


def _damaged(regions: Regions, grid: Grid, boxes: Sequence[_Box]) -> Iterator[_Box]:
    """What stored tiles of a grid's level that could not be decoded cover of some boxes."""
    stored = regions.facts.levels[grid.level]
    for _, column, row in sorted(place for place in regions.unreadable if place[0] == grid.level):
        left, right = _covered(column * stored.tile_width, stored.tile_width, grid.step_x)
        top, bottom = _covered(row * stored.tile_height, stored.tile_height, grid.step_y)
        for box in boxes:
            both = max(left, box[0]), max(top, box[1]), min(right, box[2]), min(bottom, box[3])
            if both[0] < both[2] and both[1] < both[3]:
                yield both


def _covered(start: int, pixels: int, step: float) -> tuple[int, int]:
    """First cell that has something of some pixels along an axis, and one past the last."""
    # Edges of cells are rounded to a pixel at most.
    spare = 0 if step.is_integer() else 1
    return int((start - spare) // step), int(-(-(start + pixels + spare) // step))


async def _read_box(regions: Regions, grid: Grid, box: _Box, cells: Pixels) -> None:
    left, top, right, bottom = box
    block = max(int(_BLOCK / max(grid.step_x, grid.step_y)), 1)
    for y in range(top, bottom, block):
        for x in range(left, right, block):
            height, width = min(block, bottom - y), min(block, right - x)
            cells[y : y + height, x : x + width] = await read_cells(regions, grid, x, y, width, height)
