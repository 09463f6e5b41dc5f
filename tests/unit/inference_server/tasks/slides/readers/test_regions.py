"""Regions of a slide: which stored tiles are kept for those that are still to be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import Level, Pixels, Position, SlideFacts

TILE = 16


class Row:
    """A slide of four stored tiles in a row, and which of them were read."""

    def __init__(self) -> None:
        level = Level(width=4 * TILE, height=TILE, downsample_x=1.0, downsample_y=1.0, tile_width=TILE, tile_height=TILE)
        self.facts = SlideFacts(uri="slide", vendor="", reader="tiff", levels=(level,), mpp_x=None, mpp_y=None, objective_power=None)
        self.read: list[int] = []

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        self.read += [column for column, _ in places]
        return [np.zeros((TILE, TILE, 3), np.uint8) for _ in places]

    async def close(self) -> None:
        """There is nothing to close."""


def boxes(*columns: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([(column * TILE, 0, (column + 1) * TILE, TILE) for column in columns], np.int64)


async def read(regions: Regions, *columns: int) -> None:
    for column in columns:
        await regions.read(0, column * TILE, 0, TILE, TILE)


def two_tiles_of(row: Row) -> Regions:
    """Regions that keep two stored tiles."""
    return Regions(row, cache_bytes=2 * TILE * TILE * 3, most_unreadable=0.1)


async def test_what_no_region_awaits_any_more_makes_room_first() -> None:
    row = Row()
    regions = two_tiles_of(row)
    regions.expect(0, boxes(0, 0, 1, 2))
    await read(regions, 0, 1, 2, 0)
    assert [0, 1, 2] == row.read


async def test_a_region_that_is_read_again_leaves_its_tiles_to_the_others() -> None:
    row = Row()
    regions = two_tiles_of(row)
    regions.expect(0, boxes(0, 0, 1, 2))
    await read(regions, 0)
    regions.expect_again(0, boxes(0))
    await read(regions, 0, 1, 2, 0)
    assert [0, 1, 2] == row.read
