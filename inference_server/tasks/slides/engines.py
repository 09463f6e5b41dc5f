"""Which engine ran which tiles of a slide: servers that share it, or go on with it, may have different ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.tiling import Tile, places_of


class TileEngines:
    """The engine of each tile, as engine:precision."""

    def __init__(self, batches: Sequence[Sequence[Tile]], engines: Mapping[int, str]) -> None:
        """`batches`: all tiles, by call; `engines`: of each batch, by its number."""
        sizes = [len(batch) for batch in batches]
        counts = Counter[str]()
        for number, size in enumerate(sizes):
            counts[engines[number]] += size
        # Tiles by engine, in the order of their names.
        self.counts: Mapping[str, int] = dict(sorted(counts.items()))
        self._names = list(self.counts)
        rows, columns = places_of([tile for batch in batches for tile in batch])
        # By row and column of tiles, the number of the name.
        self._numbers: NDArray[np.uint16] = np.zeros([places.max(initial=-1) + 1 for places in (rows, columns)], np.uint16)
        chosen = np.array([self._names.index(engines[number]) for number in range(len(sizes))], np.uint16)
        self._numbers[rows, columns] = np.repeat(chosen, sizes)

    def of(self, tiles: Sequence[Tile]) -> list[str]:
        """The engine of each of these."""
        return [self._names[number] for number in self._numbers[places_of(tiles)].tolist()]
