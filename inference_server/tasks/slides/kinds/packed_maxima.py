"""Maxima as they are kept until all tiles have been seen: in half the bytes that their places on the slide would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor
from inference_server.tasks.slides.kinds.maxima import Maxima, in_reading_order
from inference_server.tasks.slides.kinds.nuclei import POOLED
from inference_server.tasks.slides.tiling import Tile

# Places of a tile whose numbers fit in two bytes.
_PLACES = 2**16


@dataclass(frozen=True, kw_only=True)
class PackedMaxima:
    """Of one scale and some tiles of one size, each tile's after those of the one before, in reading order."""

    tiles: Sequence[Tile]
    # How many there are in each 65,536 places of each tile: tiles × blocks of places, one after the other.
    counts: NDArray[np.int32]
    # Within those.
    place: NDArray[np.uint16]
    # OD.
    response: NDArray[np.float32]

    @staticmethod
    def of(tiles: Sequence[Tile], *, counts: Tensor, place: Tensor, response: Tensor) -> PackedMaxima:
        """From places in a scale's output, as many of each tile as are counted; raises `ValueError` where there are more or fewer."""
        blocks = -(-((tiles[0].size // POOLED) ** 2) // _PLACES)
        if counts.sum() != len(place):
            raise ValueError("as many places as are counted are expected")
        block = np.repeat(np.arange(len(tiles), dtype=np.int32) * blocks, counts.astype(np.int64)) + place.astype(np.int32) // _PLACES
        return PackedMaxima(
            tiles=tiles,
            counts=_counted(block, len(tiles) * blocks),
            place=(place % _PLACES).astype(np.uint16),
            response=response.astype(np.float32),
        )

    def where(self, kept: NDArray[np.bool_]) -> PackedMaxima:
        """Some of them."""
        block = np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)
        return PackedMaxima(
            tiles=self.tiles, counts=_counted(block[kept], len(self.counts)), place=self.place[kept], response=self.response[kept]
        )

    def unpacked(self) -> Maxima:
        """By their places on the slide."""
        blocks = len(self.counts) // len(self.tiles)
        first = np.arange(len(self.counts), dtype=np.int32) % blocks * _PLACES
        row, column = np.divmod(np.repeat(first, self.counts) + self.place, np.int32(self.tiles[0].size // POOLED))
        of_tiles = self.counts.reshape(-1, blocks).sum(axis=1)
        x, y = (np.repeat(np.array(corners, np.int32), of_tiles) for corners in ([t.x for t in self.tiles], [t.y for t in self.tiles]))
        return Maxima(x=x + POOLED * column, y=y + POOLED * row, response=self.response)


def among_pooled(place: NDArray[np.int64], *, columns: int, edge: int) -> NDArray[np.int64]:
    """Places in a scale's output, so many columns wide, of tiles of an edge in pixels, as places among means of `POOLED` pixels."""
    most = edge // POOLED
    if columns == most:
        return place
    row, column = np.divmod(place, columns)
    return (row * most + column) * (most // columns)


def in_order(found: Sequence[PackedMaxima]) -> Maxima:
    """The maxima of all tiles, in reading order on the slide."""
    count, end = sum(len(each.place) for each in found), 0
    x, y, response = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.float32)
    for each in found:
        start, end = end, end + len(each.place)
        some = each.unpacked()
        x[start:end], y[start:end], response[start:end] = some.x, some.y, some.response
    # Each row of a tile is in order already, and these runs are what a stable sort makes use of.
    order = np.argsort(in_reading_order(x, y), kind="stable")
    return Maxima(x=x[order], y=y[order], response=response[order])


def _counted(block: NDArray[np.int32], blocks: int) -> NDArray[np.int32]:
    counts = np.bincount(block, minlength=blocks)
    if len(counts) > blocks:
        raise ValueError("places within the tiles are expected")
    return counts.astype(np.int32)
