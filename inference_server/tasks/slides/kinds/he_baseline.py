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
from inference_server.tasks.slides.kinds.nuclei import POOLED, Maxima, Nuclei, choose, eosin_leak
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.outputs.rendering import smoothed
from inference_server.tasks.slides.tiling import Tile, cell_sums, places_of
from inference_server.tasks.slides.tissue import Tissue
from inference_server.tasks.slides.values import Pixels

NAME = BUILT_IN
MPP = 0.5
HALO = 22
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
_CELL_OUTPUTS = ("haematoxylin", "eosin", "sharpness")
# σ of the scales by the output that has their maxima, in µm.
SCALES = {"candidates": 2.0, "coarse_candidates": 2.8}

PLAN = AnalysisPlan(
    model=NAME,
    outputs=(*SCALES, *_CELL_OUTPUTS),
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

    def __init__(self, *, plan: AnalysisPlan, grid: Grid, tissue: Tissue, colours: Pixels) -> None:
        """`grid`: of the analysis; `tissue`: on cells of 16 × 16 of its pixels; `colours`: their mean RGB."""
        self._plan = plan
        self._grid = grid
        self._tissue = tissue
        self._leak = eosin_leak(colours[tissue.mask])
        shape = tissue.mask.shape
        self._cells = {name: np.zeros(shape, np.float32) for name in _CELL_OUTPUTS}
        # Of each scale, and of each tile, its maxima on the slide.
        self._maxima: dict[str, list[Maxima]] = {name: [] for name in SCALES}

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """The pixels as they are, and the leak of eosin that the slide's colours show."""
        return inputs_of(tiles, [self._leak] * len(tiles))

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """Means by cell as they are; maxima of each scale as a list: `counts` by tile, and each one's `place` in its tile and `score`."""
        kept = {name: outputs[name] for name in _CELL_OUTPUTS}
        for name in SCALES:
            maxima = outputs[name].reshape(len(tiles), -1)
            number, place = np.nonzero(maxima)
            kept[f"{name}.counts"] = np.bincount(number, minlength=len(tiles)).astype(np.int32)
            kept[f"{name}.place"] = place.astype(np.int32)
            kept[f"{name}.score"] = maxima[number, place].astype(np.float32)
        return kept

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take maxima by their place on the slide, and means by cell."""
        for name, found in self._maxima.items():
            place, score = kept[f"{name}.place"], kept[f"{name}.score"]
            ends = np.cumsum(kept[f"{name}.counts"], dtype=np.int64).tolist()
            for tile, start, end in zip(tiles, [0, *ends], ends, strict=False):
                found.append(maxima_of(place[start:end], score[start:end], tile))
        for index, tile in enumerate(tiles):
            row, column = tile.y // CELL, tile.x // CELL
            for name, cells in self._cells.items():
                window = cells[row : row + tile.size // CELL, column : column + tile.size // CELL]
                window[...] = kept[name][index][: window.shape[0], : window.shape[1]]

    def findings(self) -> Findings:
        """Sum up over tissue: candidates elsewhere are dust or glass."""
        nuclei = choose(*map(self._on_tissue, self._maxima.values()), width=self._grid.width, height=self._grid.height)
        x, y = nuclei.found.x, nuclei.found.y
        counts = np.zeros(self._tissue.mask.shape)
        np.add.at(counts, (y // CELL, x // CELL), 1)
        points = np.stack([x * self._grid.scale_x, y * self._grid.scale_y], axis=1)
        return Findings(
            measures=self._measures(nuclei),
            notes=(
                "Nuclear candidates are blobs of haematoxylin density that a filter found, without learned weights. Nobody verified them.",
                "Measurements for research; not for diagnosis.",
            ),
            heat=self._heat(counts),
            points=points,
            shapes=lambda: _shapes(points, nuclei),
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

    def _on_tissue(self, tiles: Sequence[Maxima]) -> Maxima:
        """The maxima of all tiles in reading order, on the slide and on tissue."""
        x, y = (np.concatenate([getattr(each, name) for each in tiles] or [np.empty(0, np.int32)]) for name in ("x", "y"))
        response = np.concatenate([each.response for each in tiles] or [np.empty(0, np.float32)])
        order = np.lexsort((x, y))
        every = Maxima(x=x[order], y=y[order], response=response[order])
        mask = self._tissue.mask
        rows, columns = np.minimum(every.y // CELL, mask.shape[0] - 1), np.minimum(every.x // CELL, mask.shape[1] - 1)
        return every.where(mask[rows, columns] & (every.x < self._grid.width) & (every.y < self._grid.height))

    def _measures(self, nuclei: Nuclei) -> dict[str, Json]:
        candidates = len(nuclei.coarse)
        mask, coverage = self._tissue.mask, self._tissue.coverage
        weights = coverage[mask]
        area = self._tissue.area_mm2
        blurred = float(weights[self._sharpness()[mask] < LEAST_SHARPNESS].sum()) * self._tissue.grid.cell_mm2
        return {
            "nuclear_candidates": candidates,
            "nuclear_candidates_per_mm2": _rounded(candidates / area if area else None),
            "coarse_candidates": int(np.count_nonzero(nuclei.coarse)),
            "least_response_od": _rounded(nuclei.least_response),
            "least_coarse_response_od": _rounded(nuclei.least_coarse_response),
            "eosin_leak": self._leak,
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


def inputs_of(tiles: Pixels, leaks: Sequence[float]) -> Tensors:
    """The model's input from tiles with their halo, and each one's leak of eosin."""
    return {"tiles": tiles, "eosin_leak": np.array(leaks, np.float32)[:, None]}


def maxima_of(place: Tensor, score: Tensor, tile: Tile) -> Maxima:
    """Maxima by their place in a scale's output for a tile."""
    row, column = np.divmod(place.astype(np.int32), tile.size // POOLED)
    return Maxima(x=tile.x + POOLED * column, y=tile.y + POOLED * row, response=score.astype(np.float32))


def _shapes(points: NDArray[np.float64], nuclei: Nuclei) -> Iterator[Shape]:
    fine, coarse = SCALES.values()
    for (x, y), strength, large in zip(points.tolist(), nuclei.found.response.tolist(), nuclei.coarse.tolist(), strict=True):
        yield Shape(
            corners=((x, y),),
            classification=CLASSIFICATION,
            colour=_COLOUR,
            measurements={"Response (OD)": round(strength, 4), "Scale (µm)": coarse if large else fine},
        )


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
