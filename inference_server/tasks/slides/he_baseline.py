"""The built-in analysis of H&E slides: stain densities, nuclear candidates and blur, without learned weights.

Its graph is built by `models/builders/he_baseline.py`; the constants below are that graph's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import InvalidInput
from inference_server.tasks.slides.findings import AnalysisPlan, Column, Findings, Heat, Json, Shape
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.rendering import smoothed
from inference_server.tasks.slides.tiling import Tile, cell_sums, places_of
from inference_server.tasks.slides.tissue import Tissue
from inference_server.tasks.slides.values import Pixels

NAME = "he_baseline"
MPP = 0.5
HALO = 17
CELL = 16
CLASSIFICATION = "Nuclear candidate"
# Mean |Laplacian| of green, in grey levels, over 5 × 5 cells (40 µm), below which tissue counts as blurred. On H&E at 0.5 µm/px
# sharp tissue has 5 to 50; a Gaussian blur of σ 1 µm takes it below 3.5. HistoQC (Janowczyk 2019) does the same at 4 µm/px.
LEAST_SHARPNESS = 3.5
_BLUR_WINDOW = 5
# Candidates are counted around each cell with a Gaussian of this σ, in µm.
_DENSITY_SIGMA = 25.0
# Least top of the heatmap's colours, in candidates per mm²: sparse slides look sparse.
_LEAST_TOP = 2000.0
_COLOUR = (90, 60, 160)
_SMALLEST_TILE, _LARGEST_TILE = 64, 2048
_PIXELS_A_CALL = 2 * 512 * 512

PLAN = AnalysisPlan(
    model=NAME,
    outputs=("candidates", "haematoxylin", "eosin", "sharpness"),
    mpp=MPP,
    tile_size=512,
    halo=HALO,
    cell=CELL,
    least_tissue=0.0,
    batch=2,
    learned_weights=False,
)


def plan_of(tile_size: int) -> AnalysisPlan:
    """The plan for tiles of a size, 0 for 512. Results do not depend on it. Raises `InvalidInput`."""
    if tile_size == 0:
        return PLAN
    if not _SMALLEST_TILE <= tile_size <= _LARGEST_TILE or tile_size % CELL:
        raise InvalidInput(
            f"tile_size is {tile_size}; he_baseline takes multiples of {CELL} from {_SMALLEST_TILE} to {_LARGEST_TILE} px, or 0 for 512."
        )
    return dataclasses.replace(PLAN, tile_size=tile_size, batch=max(_PIXELS_A_CALL // tile_size**2, 1))


class HeBaseline:
    """One run over one slide."""

    def __init__(self, *, plan: AnalysisPlan, grid: Grid, tissue: Tissue) -> None:
        """`grid`: of the analysis; `tissue`: on cells of 16 × 16 of its pixels."""
        self._plan = plan
        self._grid = grid
        self._tissue = tissue
        shape = tissue.mask.shape
        self._cells = {name: np.zeros(shape, np.float32) for name in plan.outputs[1:]}
        # Of each tile: x, y (grid pixels) and score of its candidates.
        self._points: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """The graph takes the pixels as they are."""
        return {"tiles": tiles}

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """Means by cell as they are, and candidates as a list: `counts` by tile, and each one's `place` in its tile and `score`."""
        candidates = outputs["candidates"].reshape(len(tiles), -1)
        number, place = np.nonzero(candidates)
        return {
            **{name: outputs[name] for name in self._cells},
            "counts": np.bincount(number, minlength=len(tiles)).astype(np.int32),
            "place": place.astype(np.int32),
            "score": candidates[number, place].astype(np.float32),
        }

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take candidates by their place on the slide, and means by cell."""
        ends = np.cumsum(kept["counts"], dtype=np.int64)
        for index, tile in enumerate(tiles):
            found = slice(ends[index] - kept["counts"][index], ends[index])
            place = kept["place"][found].astype(np.int64)
            self._points.append((tile.x + place % tile.size, tile.y + place // tile.size, kept["score"][found].astype(np.float32)))
            row, column = tile.y // CELL, tile.x // CELL
            for name, cells in self._cells.items():
                window = cells[row : row + tile.size // CELL, column : column + tile.size // CELL]
                window[...] = kept[name][index][: window.shape[0], : window.shape[1]]

    def findings(self) -> Findings:
        """Sum up over tissue: candidates elsewhere are dust or glass."""
        x, y, score = self._candidates()
        mask = self._tissue.mask
        counts = np.zeros(mask.shape)
        np.add.at(counts, (y // CELL, x // CELL), 1)
        points = np.stack([x * self._grid.scale_x, y * self._grid.scale_y], axis=1)
        return Findings(
            measures=self._measures(len(x)),
            notes=(
                "Nuclear candidates are blobs of haematoxylin density that a filter found, without learned weights. Nobody verified them.",
                "Measurements for research; not for diagnosis.",
            ),
            heat=self._heat(counts),
            points=points,
            shapes=lambda: _shapes(points, score),
            figures=self._figures(counts),
        )

    def _figures(self, counts: NDArray[np.float64]) -> Callable[[Sequence[Tile]], Mapping[str, Column]]:
        """Sums over the cells of each tile, once for the whole slide. `counts`: candidates by cell."""
        mask = self._tissue.mask
        sharpness, weights = self._sharpness(), self._tissue.coverage * mask

        def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return cell_sums(values, self._plan.tile_size // CELL)

        tissue = sums(weights)
        found = {
            "sharpness": _shares(sums(sharpness * weights), tissue),
            "blurred_share": _shares(sums(weights * (sharpness < LEAST_SHARPNESS)), tissue),
            "mean_haematoxylin_od": _shares(sums((self._cells["haematoxylin"] * mask).astype(np.float64)), tissue),
            "mean_eosin_od": _shares(sums((self._cells["eosin"] * mask).astype(np.float64)), tissue),
        }
        candidates = sums(counts).astype(np.int32)

        def figures(tiles: Sequence[Tile]) -> Mapping[str, Column]:
            rows, columns = places_of(tiles)
            return {**{name: values[rows, columns] for name, values in found.items()}, "nuclear_candidates": candidates[rows, columns]}

        return figures

    def _candidates(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """In reading order, on the slide and on tissue."""
        if not self._points:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        x, y, score = (np.concatenate(parts) for parts in zip(*self._points, strict=True))
        order = np.lexsort((x, y))
        x, y, score = x[order], y[order], score[order]
        mask = self._tissue.mask
        rows, columns = np.minimum(y // CELL, mask.shape[0] - 1), np.minimum(x // CELL, mask.shape[1] - 1)
        kept = mask[rows, columns] & (x < self._grid.width) & (y < self._grid.height)
        return x[kept], y[kept], score[kept]

    def _measures(self, candidates: int) -> dict[str, Json]:
        mask, coverage = self._tissue.mask, self._tissue.coverage
        weights = coverage[mask]
        area = self._tissue.area_mm2
        blurred = float(weights[self._sharpness()[mask] < LEAST_SHARPNESS].sum()) * self._tissue.grid.cell_mm2
        return {
            "nuclear_candidates": candidates,
            "nuclear_candidates_per_mm2": _rounded(candidates / area if area else None),
            # A cell's mean counts what lies past the slide's edge as white, which has no density.
            "mean_haematoxylin_od": _rounded(_weighted(self._cells["haematoxylin"][mask], weights)),
            "mean_eosin_od": _rounded(_weighted(self._cells["eosin"][mask], weights)),
            "blurred_tissue_mm2": _rounded(blurred),
            "blurred_tissue_share": _rounded(blurred / area if area else None),
        }

    def _sharpness(self) -> NDArray[np.float64]:
        """Mean over the tissue of the window, so that glass, which is smooth, does not count as blurred."""
        mask = self._tissue.mask.astype(np.float64)
        tissue = _window_sum(mask)
        sharpness: NDArray[np.float64] = np.divide(
            _window_sum(self._cells["sharpness"] * mask), tissue, out=np.zeros_like(tissue), where=tissue > 0
        )
        return sharpness

    def _heat(self, counts: NDArray[np.float64]) -> Heat:
        cells = self._tissue.grid
        sigma = _DENSITY_SIGMA / cells.mpp_x
        area = smoothed(self._tissue.mask * self._tissue.coverage * cells.cell_mm2, sigma)
        density = np.divide(smoothed(counts, sigma), area, out=np.zeros_like(area), where=area > 0)
        values = np.where(self._tissue.mask, density, np.nan)
        top = float(np.percentile(values[self._tissue.mask], 99)) if self._tissue.mask.any() else 0.0
        return Heat(values=values, scale=(cells.scale_x, cells.scale_y), top=max(top, _LEAST_TOP))


def _shapes(points: NDArray[np.float64], score: NDArray[np.float32]) -> Iterator[Shape]:
    for (x, y), strength in zip(points.tolist(), score.tolist(), strict=True):
        yield Shape(corners=((x, y),), classification=CLASSIFICATION, colour=_COLOUR, measurements={"Response (OD)": round(strength, 4)})


def _window_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    size = _BLUR_WINDOW
    sums = np.pad(np.pad(values, size // 2).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows: NDArray[np.float64] = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    return windows


def _shares(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.divide(sums, weights, out=np.full_like(weights, np.nan), where=weights > 0).astype(np.float32)


def _weighted(values: NDArray[np.float32], weights: NDArray[np.float64]) -> float | None:
    total = float(weights.sum())
    return float(values.astype(np.float64).sum()) / total if total else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
