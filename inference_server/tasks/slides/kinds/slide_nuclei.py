"""One run of a filter of nuclear candidates, such as `he_baseline`, over a slide: candidates, stain densities and blur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.tasks.slides.findings import AnalysisPlan, Findings, Points
from inference_server.tasks.slides.focus import blurred_blocks
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.kinds.he_summary import Summary
from inference_server.tasks.slides.kinds.maxima import Maxima, in_reading_order
from inference_server.tasks.slides.kinds.nuclei import POOLED, Nuclei, choose, eosin_leak
from inference_server.tasks.slides.kinds.nucleus_filter import CELL_OUTPUTS, NucleusFilter, inputs_of
from inference_server.tasks.slides.kinds.tile_model import colour_of
from inference_server.tasks.slides.manifest import NucleiManifest
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.tissue import Tissue
from inference_server.tasks.slides.tissue_values import TissueValues
from inference_server.tasks.slides.values import Pixels

# Candidates that are handed out at once.
_POINTS = 4096


class SlideNuclei:
    """One run of a filter over one slide."""

    def __init__(self, *, nucleus_filter: NucleusFilter, plan: AnalysisPlan, grid: Grid, tissue: Tissue, colours: Pixels) -> None:
        """`plan`: the filter's; `grid`: of the analysis; `tissue`: on the filter's cells; `colours`: mean RGB of its cells."""
        self._filter = nucleus_filter
        self._plan = plan
        self._grid = grid
        self._tissue = tissue
        self._leak = eosin_leak(colours)
        self._cells = TissueValues(tissue.mask, CELL_OUTPUTS, plan.tile_size // plan.cell)
        # Blocks of blur are cells.
        self._blurred = np.zeros_like(tissue.mask)
        # Of each scale, and of some tiles together, its maxima on tissue: candidates elsewhere are dust or glass.
        self._maxima: dict[str, list[Maxima]] = {name: [] for name in nucleus_filter.manifest.outputs}

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """The pixels as they are, and the leak of eosin that the slide's colours show."""
        return inputs_of(tiles, [self._leak] * len(tiles))

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """Means by cell as they are, and which cells are blurred; maxima of each scale as a list: `counts` by tile, `place` and `score`."""
        self._filter.check_outputs(outputs, tiles.shape)
        kept: dict[str, Tensor] = {name: outputs[name] for name in CELL_OUTPUTS}
        kept["blurred"] = blurred_blocks(tiles, halo=self._plan.halo, mpp=self._plan.mpp)
        for name in self._maxima:
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
        self._cells.put(rows, columns, {name: kept[name].astype(np.float32, copy=False) for name in CELL_OUTPUTS})
        cell = self._plan.cell
        for tile, blurred in zip(tiles, kept["blurred"], strict=True):
            window = self._blurred[tile.y // cell :, tile.x // cell :][: len(blurred), : len(blurred)]
            window[:] = blurred[: window.shape[0], : window.shape[1]]

    def findings(self) -> Findings:
        """Sum up over tissue."""
        grid, manifest = self._grid, self._filter.manifest
        fine, coarse = map(_in_order, self._maxima.values())
        nuclei = choose(fine, coarse, width=grid.width, height=grid.height, least=manifest.least_response_od, share=manifest.response_share)
        summary = Summary(
            tissue=self._tissue,
            values=self._cells,
            blurred=self._blurred,
            nuclei=nuclei,
            leak=self._leak,
            cell=self._plan.cell,
            per_tile=self._plan.tile_size // self._plan.cell,
        )
        # Its processor time is in code that lets another thread go on.
        with ThreadPoolExecutor(1) as beside:
            heat = beside.submit(summary.heat)
            measures, figures = summary.measures(), summary.figures()
        points = np.stack([nuclei.found.x * grid.scale_x, nuclei.found.y * grid.scale_y], axis=1)
        return Findings(
            measures=measures,
            notes=(
                "Nuclear candidates are blobs of haematoxylin density that a filter found, without learned weights. Nobody verified them.",
                "Measurements for research; not for diagnosis.",
            ),
            heat=heat.result(),
            points=points,
            shapes=lambda: _features(points, nuclei, manifest),
            figures=figures,
        )

    def _on_tissue(self, maxima: Maxima) -> Maxima:
        mask, cell = self._tissue.mask, self._plan.cell
        rows, columns = np.minimum(maxima.y // cell, mask.shape[0] - 1), np.minimum(maxima.x // cell, mask.shape[1] - 1)
        return maxima.where(mask[rows, columns] & (maxima.x < self._grid.width) & (maxima.y < self._grid.height))


def _maxima_of(counts: Tensor, place: Tensor, score: Tensor, tiles: Sequence[Tile]) -> Maxima:
    """Maxima by their place in a scale's output for some tiles of one size, each tile's after those of the one before."""
    row, column = np.divmod(place.astype(np.int32), tiles[0].size // POOLED)
    repeats = counts.astype(np.int64)
    if repeats.sum() != len(place):
        raise ValueError("as many places as are counted are expected")
    x, y = (np.repeat(np.array(corners, np.int32), repeats) for corners in ([tile.x for tile in tiles], [tile.y for tile in tiles]))
    return Maxima(x=x + POOLED * column, y=y + POOLED * row, response=score.astype(np.float32))


def _features(places: NDArray[np.float64], nuclei: Nuclei, manifest: NucleiManifest) -> Iterator[Points]:
    scales = np.array([manifest.scales[name] for name in manifest.outputs])
    (name,) = manifest.classes
    for start in range(0, len(places), _POINTS):
        some = slice(start, start + _POINTS)
        yield Points(
            places=places[some],
            classification=name,
            colour=colour_of(name, manifest.classes, manifest.colors),
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
