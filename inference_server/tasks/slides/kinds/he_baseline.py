"""The built-in analysis of H&E slides: stain densities, nuclear candidates and blur, without learned weights.

Its graph is built by `models/builders/he_baseline.py`; the constants below are that graph's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import InvalidInput
from inference_server.tasks.slides.findings import AnalysisPlan, Findings, Points
from inference_server.tasks.slides.focus import blurred_blocks
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.kinds.he_summary import Summary
from inference_server.tasks.slides.kinds.nuclei import POOLED, Maxima, Nuclei, choose, eosin_leak, in_reading_order
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.tissue import Tissue
from inference_server.tasks.slides.tissue_values import TissueValues
from inference_server.tasks.slides.values import Pixels

NAME = BUILT_IN
MPP = 0.5
HALO = 22
CELL = 16
CLASSIFICATION = "Nuclear candidate"
_COLOUR = (90, 60, 160)
_SMALLEST_TILE, _LARGEST_TILE = 64, 2048
# Of a call; tiles of 512 px go alone.
_PIXELS_A_CALL = 24 * 256 * 256
# Candidates that are handed out at once.
_POINTS = 4096
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
    batch=1,
    learned_weights=False,
    most_edge=512,
)


def plan_of(tile_size: int, *, most_rows: int) -> AnalysisPlan:
    """The plan for tiles of a size, 0 for 512. Results do not depend on it. Raises `InvalidInput`.

    `most_rows`: tiles that the served model takes in one call; 0 where it tells no bound.
    """
    if tile_size == 0:
        return PLAN
    if not _SMALLEST_TILE <= tile_size <= _LARGEST_TILE or tile_size % CELL:
        raise InvalidInput(
            f"tile_size is {tile_size}; he_baseline takes multiples of {CELL} from {_SMALLEST_TILE} to {_LARGEST_TILE} px, or 0 for 512."
        )
    batch = _PIXELS_A_CALL // tile_size**2 if tile_size < PLAN.tile_size else 1
    return dataclasses.replace(PLAN, tile_size=tile_size, batch=min(batch, most_rows or batch))


class HeBaseline:
    """One run over one slide."""

    def __init__(self, *, plan: AnalysisPlan, grid: Grid, tissue: Tissue, colours: Pixels) -> None:
        """`grid`: of the analysis; `tissue`: on cells of 16 × 16 of its pixels; `colours`: mean RGB of its cells."""
        self._plan = plan
        self._grid = grid
        self._tissue = tissue
        self._leak = eosin_leak(colours)
        self._cells = TissueValues(tissue.mask, _CELL_OUTPUTS, plan.tile_size // CELL)
        # Blocks of blur are cells.
        self._blurred = np.zeros_like(tissue.mask)
        # Of each scale, and of some tiles together, its maxima on tissue: candidates elsewhere are dust or glass.
        self._maxima: dict[str, list[Maxima]] = {name: [] for name in SCALES}

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """The pixels as they are, and the leak of eosin that the slide's colours show."""
        return inputs_of(tiles, [self._leak] * len(tiles))

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """Means by cell as they are, and which cells are blurred; maxima of each scale as a list: `counts` by tile, `place` and `score`."""
        kept: dict[str, Tensor] = {name: outputs[name] for name in _CELL_OUTPUTS}
        kept["blurred"] = blurred_blocks(tiles, halo=HALO, mpp=MPP)
        for name in SCALES:
            maxima = outputs[name].reshape(-1)
            # Of truth values in one row far faster than of floats, or in several rows.
            found = np.flatnonzero(maxima != 0)
            number, place = np.divmod(found, len(maxima) // len(tiles))
            kept[f"{name}.counts"] = np.bincount(number, minlength=len(tiles)).astype(np.int32)
            kept[f"{name}.place"] = place.astype(np.int32)
            kept[f"{name}.score"] = maxima[found].astype(np.float32)
        return kept

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take maxima by their place on the slide, and means by cell."""
        for name, found in self._maxima.items():
            found.append(self._on_tissue(_maxima_of(kept[f"{name}.counts"], kept[f"{name}.place"], kept[f"{name}.score"], tiles)))
        rows, columns = [tile.y // tile.size for tile in tiles], [tile.x // tile.size for tile in tiles]
        self._cells.put(rows, columns, {name: kept[name].astype(np.float32, copy=False) for name in _CELL_OUTPUTS})
        for tile, blurred in zip(tiles, kept["blurred"], strict=True):
            window = self._blurred[tile.y // CELL :, tile.x // CELL :][: len(blurred), : len(blurred)]
            window[:] = blurred[: window.shape[0], : window.shape[1]]

    def findings(self) -> Findings:
        """Sum up over tissue."""
        nuclei = choose(*map(_in_order, self._maxima.values()), width=self._grid.width, height=self._grid.height)
        summary = Summary(
            tissue=self._tissue,
            values=self._cells,
            blurred=self._blurred,
            nuclei=nuclei,
            leak=self._leak,
            cell=CELL,
            per_tile=self._plan.tile_size // CELL,
        )
        # Its processor time is in code that lets another thread go on.
        with ThreadPoolExecutor(1) as beside:
            heat = beside.submit(summary.heat)
            measures, figures = summary.measures(), summary.figures()
        points = np.stack([nuclei.found.x * self._grid.scale_x, nuclei.found.y * self._grid.scale_y], axis=1)
        return Findings(
            measures=measures,
            notes=(
                "Nuclear candidates are blobs of haematoxylin density that a filter found, without learned weights. Nobody verified them.",
                "Measurements for research; not for diagnosis.",
            ),
            heat=heat.result(),
            points=points,
            shapes=lambda: _features(points, nuclei),
            figures=figures,
        )

    def _on_tissue(self, maxima: Maxima) -> Maxima:
        mask = self._tissue.mask
        rows, columns = np.minimum(maxima.y // CELL, mask.shape[0] - 1), np.minimum(maxima.x // CELL, mask.shape[1] - 1)
        return maxima.where(mask[rows, columns] & (maxima.x < self._grid.width) & (maxima.y < self._grid.height))


def inputs_of(tiles: Pixels, leaks: Sequence[float]) -> Tensors:
    """The model's input from tiles with their halo, and each one's leak of eosin."""
    return {"tiles": tiles, "eosin_leak": np.array(leaks, np.float32)[:, None]}


def _maxima_of(counts: Tensor, place: Tensor, score: Tensor, tiles: Sequence[Tile]) -> Maxima:
    """Maxima by their place in a scale's output for some tiles of one size, each tile's after those of the one before."""
    row, column = np.divmod(place.astype(np.int32), tiles[0].size // POOLED)
    repeats = counts.astype(np.int64)
    if repeats.sum() != len(place):
        raise ValueError("as many places as are counted are expected")
    x, y = (np.repeat(np.array(corners, np.int32), repeats) for corners in ([tile.x for tile in tiles], [tile.y for tile in tiles]))
    return Maxima(x=x + POOLED * column, y=y + POOLED * row, response=score.astype(np.float32))


def _features(places: NDArray[np.float64], nuclei: Nuclei) -> Iterator[Points]:
    scales = np.array(list(SCALES.values()))
    for start in range(0, len(places), _POINTS):
        some = slice(start, start + _POINTS)
        yield Points(
            places=places[some],
            classification=CLASSIFICATION,
            colour=_COLOUR,
            measurements={
                "Response (OD)": np.asarray(np.round(nuclei.found.response[some].astype(np.float64), 4), np.float64),
                "Scale (µm)": scales[nuclei.coarse[some].astype(np.int64)],
            },
        )


def _in_order(found: Sequence[Maxima]) -> Maxima:
    """The maxima of all tiles, in reading order on the slide."""
    x, y = (np.concatenate([getattr(each, name) for each in found] or [np.empty(0, np.int32)]) for name in ("x", "y"))
    response = np.concatenate([each.response for each in found] or [np.empty(0, np.float32)])
    order = np.argsort(in_reading_order(x, y))
    return Maxima(x=x[order], y=y[order], response=response[order])
