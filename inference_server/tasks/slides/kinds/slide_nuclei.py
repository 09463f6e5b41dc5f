"""One run of a filter of nuclear candidates, such as `he_baseline`, over a slide: candidates, stain densities and blur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.allocator import return_what_is_free
from inference_server.engine.port import Tensor, Tensors
from inference_server.tasks.slides.findings import AnalysisPlan, Findings, Points
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.kinds.he_summary import BLURRED, Summary
from inference_server.tasks.slides.kinds.maxima import Maxima, of_all
from inference_server.tasks.slides.kinds.nuclei import Nuclei, choose, eosin_leak
from inference_server.tasks.slides.kinds.nucleus_filter import CELL_OUTPUTS, NucleusFilter, inputs_of
from inference_server.tasks.slides.kinds.packed_maxima import PackedMaxima, among_pooled, in_order
from inference_server.tasks.slides.kinds.tile_model import colour_of
from inference_server.tasks.slides.manifest import NucleiManifest
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.tissue.cells import Mask
from inference_server.tasks.slides.tissue.focus import blurred_blocks
from inference_server.tasks.slides.tissue.mask import Tissue
from inference_server.tasks.slides.tissue.values import TissueValues
from inference_server.tasks.slides.values import Pixels
from inference_server.threads import side_by_side

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
        # Blocks of blur are cells.
        self._cells = TissueValues(tissue.mask, CELL_OUTPUTS, plan.tile_size // plan.cell, marks=(BLURRED,))
        # Of each scale, and of some tiles together, its maxima on tissue: candidates elsewhere are dust or glass.
        self._maxima: dict[str, list[PackedMaxima]] = {name: [] for name in nucleus_filter.manifest.outputs}

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
        kept[BLURRED] = blurred_blocks(tiles, halo=self._plan.halo, mpp=self._plan.mpp)
        for name in self._maxima:
            maxima = outputs[name].reshape(-1)
            # Of truth values in one row far faster than of floats, or in several rows.
            found = np.flatnonzero(maxima != 0)
            number, place = np.divmod(found, len(maxima) // len(tiles))
            kept[f"{name}.counts"] = np.bincount(number, minlength=len(tiles)).astype(np.int32)
            kept[f"{name}.place"] = among_pooled(place, columns=outputs[name].shape[2], edge=self._plan.tile_size).astype(np.int32)
            kept[f"{name}.score"] = maxima[found].astype(np.float32)
        return kept

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take maxima by their place on the slide, and means by cell."""
        for name, found in self._maxima.items():
            counts, place, score = (kept[f"{name}.{what}"] for what in ("counts", "place", "score"))
            maxima = PackedMaxima.of(tiles, counts=counts, place=place, response=score)
            found.append(maxima.where(self._on_tissue(maxima.unpacked())))
        rows, columns = [tile.y // tile.size for tile in tiles], [tile.x // tile.size for tile in tiles]
        values: dict[str, NDArray[np.float32] | Mask] = {name: kept[name].astype(np.float32, copy=False) for name in CELL_OUTPUTS}
        self._cells.put(rows, columns, values | {BLURRED: kept[BLURRED].astype(np.bool_, copy=False)})

    def findings(self) -> Findings:
        """Sum up over tissue, once."""
        grid, manifest, nuclei = self._grid, self._filter.manifest, self._chosen()
        # Of the maxima, between what was chosen of them.
        return_what_is_free()
        summary = Summary(
            tissue=self._tissue,
            values=self._cells,
            nuclei=nuclei,
            coarse=len(manifest.outputs) // 2,
            leak=self._leak,
            cell=self._plan.cell,
            per_tile=self._plan.tile_size // self._plan.cell,
        )
        (measures, figures), heat = side_by_side(lambda: (summary.measures(), summary.figures()), summary.heat)
        self._cells.forget()
        points = np.stack([nuclei.found.x * grid.scale_x, nuclei.found.y * grid.scale_y], axis=1)
        return Findings(
            measures=measures,
            notes=(
                "Nuclear candidates are blobs of haematoxylin density that a filter found, without learned weights. Nobody verified them.",
                "Measurements for research; not for diagnosis.",
            ),
            heat=heat,
            points=points,
            shapes=lambda: _features(points, nuclei, manifest),
            figures=figures,
        )

    def _chosen(self) -> Nuclei:
        """The candidates among the maxima, which are let go."""
        grid, manifest = self._grid, self._filter.manifest
        return choose(
            of_all([self._maxima.pop(name) for name in manifest.outputs], in_order),
            manifest.sigmas,
            width=grid.width,
            height=grid.height,
            least=manifest.least_response_od,
            share=manifest.response_share,
        )

    def _on_tissue(self, maxima: Maxima) -> Mask:
        mask, cell = self._tissue.mask, self._plan.cell
        rows, columns = np.minimum(maxima.y // cell, mask.shape[0] - 1), np.minimum(maxima.x // cell, mask.shape[1] - 1)
        found: Mask = mask[rows, columns] & (maxima.x < self._grid.width) & (maxima.y < self._grid.height)
        return found


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
                "Scale (µm)": scales[nuclei.scale[some]],
            },
        )
