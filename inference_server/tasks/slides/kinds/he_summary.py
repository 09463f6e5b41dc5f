"""What `he_baseline` found on a slide, summed up over its tissue cells, stripe by stripe, so that no plane of numbers is held whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.findings import Column, Heat, Json
from inference_server.tasks.slides.kinds.nuclei import Nuclei
from inference_server.tasks.slides.outputs.rendering import reach_of, smoothed
from inference_server.tasks.slides.tiling import Tile, cell_sums, places_of
from inference_server.tasks.slides.tissue.cells import Mask, spans, stripes
from inference_server.tasks.slides.tissue.focus import blurred_tissue
from inference_server.tasks.slides.tissue.mask import Tissue
from inference_server.tasks.slides.tissue.values import TissuePlane, TissueValues

# The name of the marks of cells that are out of focus.
BLURRED = "blurred"
_Value = TypeVar("_Value", np.float64, np.bool_)
# Sharpness is the mean over the tissue in 5 × 5 cells (40 µm).
_SHARPNESS_WINDOW = 5
# Candidates are counted around each cell with a Gaussian of this σ, in µm.
_DENSITY_SIGMA = 25.0
# Least top of the heatmap's colours, in candidates per mm²: sparse slides look sparse.
_LEAST_TOP = 2000.0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of one slide."""

    tissue: Tissue
    # Haematoxylin, eosin (OD) and sharpness (grey levels), and which are blurred by themselves.
    values: TissueValues
    nuclei: Nuclei
    # The first of the coarser half of the scales.
    coarse: int
    # OD of haematoxylin that each OD of eosin shows.
    leak: float
    # Edge of a cell in pixels of the analysis, and of a tile in cells.
    cell: int
    per_tile: int

    def measures(self) -> dict[str, Json]:
        """Figures of the report."""
        candidates, area = len(self.nuclei.scale), self.tissue.area_mm2
        blurred = float(self._weights[self._blurred].sum()) * self.tissue.grid.cell_mm2
        return {
            "nuclear_candidates": candidates,
            "nuclear_candidates_per_mm2": _rounded(candidates / area if area else None),
            "coarse_candidates": int(np.count_nonzero(self.nuclei.scale >= self.coarse)),
            "least_response_od": _rounded(self.nuclei.least_response),
            "eosin_leak": self.leak,
            # A cell's mean counts what lies past the slide's edge as white, which has no density.
            "mean_haematoxylin_od": _rounded(_weighted(self.values["haematoxylin"], self._weights)),
            "mean_eosin_od": _rounded(_weighted(self.values["eosin"], self._weights)),
            "blurred_tissue_mm2": _rounded(blurred),
            "blurred_tissue_share": _rounded(blurred / area if area else None),
        }

    def figures(self) -> Callable[[Sequence[Tile]], Mapping[str, Column]]:
        """Sums over the cells of each tile, once for the whole slide."""
        weights, sharpness = self._weights, self._sharpness
        tissue = self._by_tile(weights)
        found = {
            "sharpness": _shares(self._by_tile(sharpness, weights), tissue),
            "blurred_share": _shares(self._by_tile(weights, self._blurred), tissue),
            "mean_haematoxylin_od": _shares(self._by_tile(self.values["haematoxylin"]), tissue),
            "mean_eosin_od": _shares(self._by_tile(self.values["eosin"]), tissue),
        }
        candidates = cell_sums(self._counts, cell=1, size=self.per_tile).astype(np.int32)

        def figures(tiles: Sequence[Tile]) -> Mapping[str, Column]:
            rows, columns = places_of(tiles)
            return {**{name: values[rows, columns] for name, values in found.items()}, "nuclear_candidates": candidates[rows, columns]}

        return figures

    def heat(self) -> Heat:
        """Candidates per mm² of tissue around each cell."""
        tissue, cells = self.tissue, self.tissue.grid
        sigma = _DENSITY_SIGMA / cells.mpp_x

        def found(rows: slice, mask: Mask) -> NDArray[np.float64]:
            candidates = np.empty(mask.shape)
            for columns in spans(mask):
                candidates[:, columns][mask[:, columns]] = self._candidates_per_mm2(rows, columns, sigma)
            return candidates[mask]

        every = self._of_cells(np.float64, found)
        values = TissuePlane(tissue.mask, every.astype(np.float32), beside=np.nan)
        top = float(np.percentile(every, 99, overwrite_input=True)) if len(every) else 0.0
        return Heat(values=values, scale=(cells.scale_x, cells.scale_y), top=max(top, _LEAST_TOP))

    def _candidates_per_mm2(self, rows: slice, columns: slice, sigma: float) -> NDArray[np.float64]:
        """Around each tissue cell of some rows and columns; σ in cells."""
        tissue, reach = self.tissue, reach_of(sigma)
        # With the cells that reach into these.
        down, across = (slice(max(each.start - reach, 0), each.stop + reach) for each in (rows, columns))
        coverage = tissue.rows[down, None] * tissue.columns[across]
        area = smoothed(tissue.mask[down, across] * coverage * tissue.grid.cell_mm2, sigma)
        counts = smoothed(self._counts[down, across].astype(np.float64), sigma)
        inner = np.s_[rows.start - down.start : rows.stop - down.start, columns.start - across.start : columns.stop - across.start]
        mask = tissue.mask[rows, columns]
        candidates: NDArray[np.float64] = counts[inner][mask] / area[inner][mask]
        return candidates

    @cached_property
    def _counts(self) -> NDArray[np.uint8]:
        """Candidates of each cell, which has room for 64."""
        found, (rows, columns) = self.nuclei.found, self.tissue.mask.shape
        counts = np.zeros(rows * columns, np.uint8)
        # Of places in one row many times as fast as of rows and columns.
        np.add.at(counts, (found.y // self.cell).astype(np.int64) * columns + found.x // self.cell, np.uint8(1))
        return counts.reshape(rows, columns)

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        """Share of each tissue cell that lies on the slide."""
        tissue = self.tissue
        return self._of_cells(np.float64, lambda rows, mask: (tissue.rows[rows, None] * tissue.columns)[mask])

    @cached_property
    def _sharpness(self) -> NDArray[np.float64]:
        """Of each tissue cell, the mean over the tissue of the window, so that glass, which is smooth, does not count."""
        reach = _SHARPNESS_WINDOW // 2

        def found(rows: slice, mask: Mask) -> NDArray[np.float64]:
            means = np.empty(mask.shape)
            planes = self.values.around("sharpness", rows, reach)
            for columns in spans(mask):
                around = slice(columns.start, columns.stop + 2 * reach)
                sums, tissue = (_window_sum(plane[:, around].astype(np.float64)) for plane in planes)
                means[:, columns] = sums / np.maximum(tissue, 1)
            return means[mask]

        return self._of_cells(np.float64, found)

    @cached_property
    def _blurred(self) -> Mask:
        """Whether each tissue cell is out of focus."""
        blurred = blurred_tissue(self.values.marked(BLURRED), self.tissue.mask)
        return self._of_cells(np.bool_, lambda rows, mask: blurred[rows][mask])

    def _of_cells(self, dtype: type[_Value], found: Callable[[slice, Mask], NDArray[_Value]]) -> NDArray[_Value]:
        """What is found of each tissue cell, in reading order. `found`: of those of some rows, by their mask."""
        every, start = np.empty(np.count_nonzero(self.tissue.mask), dtype), 0
        for rows in stripes(len(self.tissue.mask)):
            mask = self.tissue.mask[rows]
            if mask.any():
                some = found(rows, mask)
                every[start : start + len(some)] = some
                start += len(some)
        return every

    @cached_property
    def _columns(self) -> list[NDArray[np.int32]]:
        """Of each row of tiles, the column of each tissue cell's tile."""
        mask, size = self.tissue.mask, self.per_tile
        rows = (np.flatnonzero(mask[start : start + size]) for start in range(0, len(mask), size))
        return [(place % mask.shape[1] // size).astype(np.int32) for place in rows]

    def _by_tile(self, values: NDArray[np.floating], shares: NDArray[np.floating] | Mask | None = None) -> NDArray[np.float64]:
        """Sums of the values of each tile's tissue cells, each by its share."""
        sums, end = np.empty((len(self._columns), -(-self.tissue.mask.shape[1] // self.per_tile))), 0
        for line, columns in zip(sums, self._columns, strict=True):
            start, end = end, end + len(columns)
            weights = values[start:end] if shares is None else values[start:end] * shares[start:end]
            line[:] = np.bincount(columns, weights, len(line))
        return sums


def _window_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    size = _SHARPNESS_WINDOW
    lines = sum(values[start : len(values) - size + 1 + start] for start in range(1, size)) + values[: 1 - size]
    width = values.shape[1] - size + 1
    windows: NDArray[np.float64] = sum(lines[:, start : width + start] for start in range(1, size)) + lines[:, :width]
    return windows


def _shares(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.divide(sums, weights, out=np.full_like(weights, np.nan), where=weights > 0).astype(np.float32)


def _weighted(values: NDArray[np.float32], weights: NDArray[np.float64]) -> float | None:
    total = float(weights.sum())
    return float(values.astype(np.float64).sum()) / total if total else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
