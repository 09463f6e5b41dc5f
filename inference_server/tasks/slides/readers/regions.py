"""Regions of a slide, put together from its stored tiles: cached, bounded, and white past the edge."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.readers.port import SlideReader
from inference_server.tasks.slides.values import Level, Pixels, Place, Position, SlideFacts
from inference_server.threads import on_core

WHITE = 255

# Stored tiles of a row that may be fetched along with those before them: four more columns of the order in which tiles are visited.
_COLUMNS_AHEAD = 16
# Of one read, three bytes each.
_MOST_PIXELS = 2**28


@dataclass(frozen=True, kw_only=True)
class News:
    """Stored tiles that were read, and those of them that could not be decoded."""

    read: Sequence[Place]
    unreadable: Sequence[Place]


class Regions:
    """Reads any rectangle of any level, and remembers which stored tiles could not be decoded."""

    def __init__(
        self,
        reader: SlideReader,
        *,
        cache_bytes: int,
        most_unreadable: float,
        analysed: int | None = None,
        moved: Callable[[], None] = lambda: None,
        forgotten: Callable[[], None] = lambda: None,
    ) -> None:
        """`most_unreadable`: share of the stored tiles read, of all levels together, beyond which `InvalidSlide` is raised.

        `analysed`: the level that is; damaged tiles of coarser ones are never too many, for what they show is read from a finer level.
        `moved`: called when some are read; `forgotten`: when none are held any more.
        """
        self._reader = reader
        self._cache_bytes = cache_bytes
        self._most_unreadable = most_unreadable
        levels = reader.facts.levels
        # Numbers of those whose damaged tiles may be too many.
        coarsest = math.inf if analysed is None else levels[analysed].downsample
        self._judged = {index for index, level in enumerate(levels) if level.downsample <= coarsest}
        self._moved = moved
        self._forgotten = forgotten
        self._tiles: OrderedDict[Place, asyncio.Future[Pixels | None]] = OrderedDict()
        self._held_bytes = 0
        # By level, row and column: how many regions that were announced are still to be read from a stored tile.
        self._awaited: dict[int, NDArray[np.int32]] = {}
        self._read: set[Place] = set()
        # Most stored tiles of each level that will be read, those that are read again once.
        self._most_read = [level.columns * level.rows for level in levels]
        self._untold: list[Place] = []
        self.unreadable: set[Place] = set()

    @property
    def reader(self) -> SlideReader:
        """What reads the stored tiles."""
        return self._reader

    @property
    def facts(self) -> SlideFacts:
        """What the slide is."""
        return self._reader.facts

    async def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Height × width × RGB from (x, y) in pixels of the level; white past its edges and where a tile cannot be decoded.

        Raises `InvalidSlide` for more pixels than one read may hold in memory.
        """
        pixels: Pixels = (await self.read_all(level, [(x, y)], width, height))[0]
        return pixels

    async def read_all(self, level: int, corners: Sequence[tuple[int, int]], width: int, height: int) -> Pixels:
        """Regions of one size as `read` gives them, corners × height × width × RGB; all that they need is read together."""
        self.check_size(width, height)
        stored = self.facts.levels[level]
        below = [_places(level, stored, (x, y, x + width, y + height)) for x, y in corners]
        counts = Counter(itertools.chain.from_iterable(below))
        tiles = dict(zip(counts, await self._fetch(stored, list(counts)), strict=True))
        self._arrived(level, counts)
        return await on_core(_pasted, stored, corners, (height, width), below, tiles)

    def check_size(self, width: int, height: int) -> None:
        """Raise `InvalidSlide` for a region that is absurdly large, whether it is read at once or in pieces."""
        if width * height > _MOST_PIXELS:
            raise InvalidSlide(
                f"{self.facts.uri} has no level near the resolution of the analysis: {width} × {height} px would be read at once. "
                "Export it as a pyramid; or pass its true mpp in the request."
            )

    def expect(self, level: int, boxes: NDArray[np.int64]) -> None:
        """Announce regions, so that stored tiles which none of them needs any more make room first; of others only coarser levels are read.

        `boxes`: each one's left, top, right and bottom in pixels of the level, [count, 4]. They cost nothing but room when they never come.
        """
        stored = self.facts.levels[level]
        self._awaited[level] = _below(stored, boxes)
        for index, each in enumerate(self.facts.levels):
            if each.downsample <= stored.downsample:
                self._most_read[index] = sum(1 for place in self._read if place[0] == index)
        self._most_read[level] += int(np.count_nonzero(self._awaited[level]))

    def narrow(self, level: int, boxes: NDArray[np.int64]) -> None:
        """Tell that of the regions which were announced these alone will be read, as of a share of a slide. `boxes`: as for `expect`."""
        self._awaited[level] = _below(self.facts.levels[level], boxes)

    def expect_again(self, level: int, boxes: NDArray[np.int64]) -> None:
        """Announce some more regions: of those that were announced, what was read before it could be used. `boxes`: as for `expect`."""
        stored, awaited = self.facts.levels[level], self._awaited[level]
        for box in boxes.tolist():
            for _, column, row in _places(level, stored, box):
                awaited[row, column] += 1

    def _arrived(self, level: int, counts: Mapping[Place, int]) -> None:
        """Count regions that were read from each stored tile, and put those to be evicted first that no other awaits."""
        awaited = self._awaited.get(level)
        if awaited is None:
            return
        for place, count in counts.items():
            left = awaited[place[2], place[1]] = awaited[place[2], place[1]] - count
            if left <= 0 < left + count and place in self._tiles:
                self._tiles.move_to_end(place, last=False)

    async def _fetch(self, stored: Level, places: list[Place]) -> list[Pixels | None]:
        missing = [place for place in places if place not in self._tiles]
        loop = asyncio.get_running_loop()
        futures: dict[Place, asyncio.Future[Pixels | None]] = {place: loop.create_future() for place in missing}
        self._tiles.update(futures)
        wanted = [self._tiles[place] for place in places]
        for place in places:
            self._tiles.move_to_end(place)
        if missing:
            await self._load(stored, missing, futures)
        # Most are there already.
        return [future.result() if future.done() else await future for future in wanted]

    async def _load(self, stored: Level, missing: list[Place], futures: dict[Place, asyncio.Future[Pixels | None]]) -> None:
        level = missing[0][0]
        try:
            tiles = await self._reader.read_tiles(level, [(column, row) for _, column, row in missing], self._following(stored, missing))
        except BaseException:
            for place, future in futures.items():
                self._tiles.pop(place, None)
                # Whoever waits for these tiles fails with the same analysis.
                future.cancel()
            raise
        self._moved()
        for place, tile in zip(missing, tiles, strict=True):
            futures[place].set_result(tile)
            if tile is None:
                self.unreadable.add(place)
        self._held_bytes += len(missing) * stored.tile_width * stored.tile_height * 3
        self._read.update(missing)
        self._untold += missing
        # Certain already, whatever else may be read.
        self._judge(max(sum(self._most_read), len(self._read)))
        self._evict()

    def _following(self, stored: Level, missing: list[Place]) -> list[Position]:
        """Columns and rows of the tiles to the right of these that regions which were announced need, as far as they follow each other."""
        level, last = missing[0][0], dict[int, int]()
        awaited = self._awaited.get(level)
        if awaited is None:
            return []
        for _, column, row in missing:
            last[row] = max(column, last.get(row, 0))
        soon = list[Position]()
        for row, column in last.items():
            first = column + 1
            for following, regions in enumerate(awaited[row, first : first + _COLUMNS_AHEAD].tolist(), first):
                if regions <= 0 or (level, following, row) in self._tiles:
                    break
                soon.append((following, row))
        return soon

    def news(self) -> News:
        """What was read since the last time."""
        read, self._untold = self._untold, []
        return News(read=read, unreadable=[place for place in read if place in self.unreadable])

    def recall(self, news: News) -> None:
        """Take up what an earlier run has read, so that the slide is judged by all of it."""
        self._read.update(news.read)
        self.unreadable.update(news.unreadable)

    def lacks(self, level: int, boxes: NDArray[np.int64]) -> bool:
        """Whether some stored tile below these boxes (as for `expect`) was read by nobody yet."""
        stored = self.facts.levels[level]
        return any(place not in self._read for box in boxes.tolist() for place in _places(level, stored, box))

    def judge(self) -> None:
        """Raise `InvalidSlide` when too many of the stored tiles that were read cannot be decoded."""
        self._judge(len(self._read))

    def forget(self) -> None:
        """Hold no tiles from now on; those that are read again are fetched again."""
        self._cache_bytes = 0
        self._evict()
        self._forgotten()

    def drop(self, level: int) -> None:
        """Hold nothing of a level from which nothing more will be read."""
        stored = self.facts.levels[level]
        dropped = [place for place, tile in self._tiles.items() if place[0] == level and tile.done()]
        for place in dropped:
            del self._tiles[place]
        self._held_bytes -= len(dropped) * stored.tile_width * stored.tile_height * 3

    def _judge(self, tiles: int) -> None:
        most = self._most_unreadable * tiles
        if len(self.unreadable) <= most:
            return
        lost = sum(1 for place in self.unreadable if place[0] in self._judged)
        if lost > most:
            raise InvalidSlide(
                f"{self.facts.uri} is damaged: {lost} of the {len(self._read)} stored tiles that were read "
                f"cannot be decoded, and at most {self._most_unreadable:.0%} may be. Copy or export the slide again."
            )

    def _evict(self) -> None:
        spare, freed, levels = self._held_bytes - self._cache_bytes, list[Place](), self.facts.levels
        for place, tile in self._tiles.items():
            if spare <= 0:
                break
            if tile.done():
                stored = levels[place[0]]
                spare -= stored.tile_width * stored.tile_height * 3
                freed.append(place)
        for place in freed:
            del self._tiles[place]
        self._held_bytes = spare + self._cache_bytes


def _places(level: int, stored: Level, box: tuple[int, int, int, int]) -> list[Place]:
    """The stored tiles below a box of left, top, right and bottom."""
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], stored.width), min(box[3], stored.height)
    if left >= right or top >= bottom:
        return []
    rows = range(top // stored.tile_height, -(-bottom // stored.tile_height))
    columns = range(left // stored.tile_width, -(-right // stored.tile_width))
    return [(level, column, row) for row in rows for column in columns]


def _below(stored: Level, boxes: NDArray[np.int64]) -> NDArray[np.int32]:
    """How many of the boxes lie above each stored tile, by its row and column."""
    sizes = np.array([stored.tile_width, stored.tile_height])
    most = np.array([stored.columns, stored.rows])
    first = np.clip(boxes[:, :2] // sizes, 0, most)
    last = np.clip(-(-boxes[:, 2:] // sizes), first, most)
    # What begins and ends in each row and column; summed up it is what lies there.
    steps = np.zeros((stored.rows + 1, stored.columns + 1), np.int32)
    for rows, columns, sign in ((first, first, 1), (first, last, -1), (last, first, -1), (last, last, 1)):
        np.add.at(steps, (rows[:, 1], columns[:, 0]), sign)
    counts: NDArray[np.int32] = np.cumsum(np.cumsum(steps, axis=0, dtype=np.int32), axis=1, dtype=np.int32)[:-1, :-1]
    return counts


def _pasted(
    stored: Level, corners: Sequence[tuple[int, int]], size: tuple[int, int], below: list[list[Place]], tiles: dict[Place, Pixels | None]
) -> Pixels:
    pixels = np.empty((len(corners), *size, 3), np.uint8)
    for region, (x, y), places in zip(pixels, corners, below, strict=True):
        inside = x >= 0 and y >= 0 and x + size[1] <= stored.width and y + size[0] <= stored.height
        found = [(place, tile) for place in places if (tile := tiles[place]) is not None]
        if not inside or len(found) < len(places):
            region.fill(WHITE)
        for place, tile in found:
            _paste(region, tile, place, stored, (x, y))
    return pixels


def _paste(pixels: Pixels, tile: Pixels, place: Place, stored: Level, origin: tuple[int, int]) -> None:
    x, y = origin
    tile_x, tile_y = place[1] * stored.tile_width, place[2] * stored.tile_height
    left, right = max(x, tile_x, 0), min(x + pixels.shape[1], tile_x + stored.tile_width, stored.width)
    top, bottom = max(y, tile_y, 0), min(y + pixels.shape[0], tile_y + stored.tile_height, stored.height)
    pixels[top - y : bottom - y, left - x : right - x] = tile[top - tile_y : bottom - tile_y, left - tile_x : right - tile_x]
