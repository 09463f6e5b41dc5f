"""Values of a slide's tissue cells, in reading order, taken up tile by tile: most of a slide is glass, of which nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.tissue.cells import Mask

_Value = TypeVar("_Value", bound=np.generic)


class TissuePlane(Generic[_Value]):
    """A map of which only the values of tissue cells are held; made some rows at a time."""

    def __init__(self, mask: Mask, values: NDArray[_Value], *, beside: float) -> None:
        """`values`: of tissue cells in reading order; `beside`: what all others have."""
        self._mask = mask
        self._values = values
        self._beside = beside
        self._starts = np.cumsum([0, *np.count_nonzero(mask, axis=1)])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._mask.shape[0], self._mask.shape[1]

    def __getitem__(self, rows: slice) -> NDArray[_Value]:
        """Some rows."""
        first, end, _ = rows.indices(len(self._mask))
        plane = np.full((end - first, self._mask.shape[1]), self._beside, self._values.dtype)
        plane[self._mask[first:end]] = self._values[self._starts[first] : self._starts[end]]
        return plane


class TissueValues:
    """Some float32 values of each cell, by name, and some marks."""

    def __init__(self, mask: Mask, names: Sequence[str], per_tile: int, *, marks: Sequence[str] = ()) -> None:
        """`per_tile`: cells along the edge of a tile; `marks`: names of truth values."""
        self._mask = mask
        self._per_tile = per_tile
        # Of each row and each column of tiles: the number of its first cell among those of tissue.
        counts = np.add.reduceat(mask, np.arange(0, mask.shape[1], per_tile), axis=1, dtype=np.int32)
        ends = np.cumsum(counts, dtype=np.int32)
        self._starts = (ends - counts.reshape(-1)).reshape(counts.shape)
        self._values: dict[str, NDArray[Any]] = {name: np.zeros(int(ends[-1]), np.float32) for name in names}
        self._values |= {name: np.zeros(int(ends[-1]), np.bool_) for name in marks}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """All of one name."""
        return self._values[name]

    def marked(self, name: str) -> TissuePlane[np.bool_]:
        """Marks as a map."""
        return TissuePlane(self._mask, self._values[name], beside=False)

    def forget(self) -> None:
        """Hold no values any more."""
        self._values.clear()

    def put(self, rows: Sequence[int], columns: Sequence[int], values: Mapping[str, NDArray[np.float32] | Mask]) -> None:
        """Take up the cells of some tiles by their row and column among the tiles; what lies past the slide's edge is left out.

        `values`: tiles × cells × cells.
        """
        size = self._per_tile
        tissue, first = np.zeros((len(rows), size, size), np.bool_), np.zeros((len(rows), size, 1), np.int32)
        for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
            window = self._mask[row * size : (row + 1) * size, column * size : (column + 1) * size]
            tissue[index, : window.shape[0], : window.shape[1]] = window
            first[index, : len(window), 0] = self._starts[row * size : row * size + len(window), column]
        place = (first + (np.cumsum(tissue, axis=2, dtype=np.int32) - 1))[tissue]
        for name, cells in values.items():
            self._values[name][place] = cells[tissue]

    def around(self, name: str, rows: slice, reach: int) -> tuple[NDArray[np.float32], Mask]:
        """Values, and where tissue is, of all cells of some rows and of `reach` more on each side; 0 elsewhere."""
        first, end = max(rows.start - reach, 0), min(rows.stop + reach, len(self._mask))
        shape = rows.stop - rows.start + 2 * reach, self._mask.shape[1] + 2 * reach
        values, tissue = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        inner = np.s_[first - rows.start + reach : end - rows.start + reach, reach:-reach]
        mask = self._mask[first:end]
        values[inner][mask] = self._values[name][self._starts[first, 0] :][: np.count_nonzero(mask)]
        tissue[inner] = mask
        return values, tissue
