"""Any segmenter of the repository: a class for each pixel, stitched without seams.

Each tile is read with a halo of half the overlap, and only its centre is kept. Where the halo is at least as wide as what the network
sees around a pixel, the mask is the same however the slide is cut.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan, Column, Findings, Heat, Json, LabelMap, Shape
from inference_server.tasks.slides.kinds.spill import Spill
from inference_server.tasks.slides.kinds.stains import Normaliser
from inference_server.tasks.slides.kinds.tile_model import TileModel, class_probabilities, colour_of, taken
from inference_server.tasks.slides.kinds.tile_sharpness import TileSharpness
from inference_server.tasks.slides.manifest import FILE, SegmenterManifest
from inference_server.tasks.slides.outputs import polygons
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile, cell_lines, places_of
from inference_server.tasks.slides.values import Pixels

# Values a pixel of a tile that a network puts out, up to which it is a usual one: with what is made of them some 50 bytes.
_USUAL_VALUES = 4
# Masks of a few classes shrink to a hundredth; more effort gains little.
_LEVEL = 1

# Dimensions of what a network puts out by class.
_PLANES_BY_TILE = 4

Labels = NDArray[np.uint8]


class TileSegmenter(TileModel):
    """How one model takes tiles, and what its output means."""

    def __init__(self, *, manifest: SegmenterManifest, facts: ModelFacts) -> None:
        """Raises `ConfigurationError` when the manifest does not fit the model."""
        super().__init__(manifest=manifest, facts=facts)
        self.manifest: SegmenterManifest = manifest
        # Edge of the part of an output that is kept, and how far it lies from the output's edge.
        self.edge = manifest.core // manifest.output_stride
        self._halo = manifest.overlap // 2 // manifest.output_stride
        values = 1 if np.issubdtype(self.output_dtype, np.integer) else len(manifest.classes)
        # As plans have it.
        self.weight = max(-(-values // (_USUAL_VALUES * manifest.output_stride**2)), 1)

    def labels(self, outputs: Mapping[str, Tensor], tiles: int) -> Labels:
        """Of so many tiles, tiles × rows × columns of the tiles' centres: 0 where no class reaches its threshold, then the classes from 1.

        Raises `ConfigurationError` when the output has another size.
        """
        raw = self.values(outputs, tiles)
        whole = self.edge + 2 * self._halo
        inner = slice(self._halo, self._halo + self.edge)
        if np.issubdtype(raw.dtype, np.integer):
            chosen = self._of_size(raw.reshape(len(raw), *[size for size in raw.shape[1:] if size != 1]), (whole, whole))
            return self._checked(chosen[:, inner, inner].astype(np.int64))
        channels_last = self.manifest.layout == "NHWC"
        values = np.moveaxis(raw, -1, 1) if channels_last and raw.ndim == 4 else raw
        if values.ndim != _PLANES_BY_TILE or values.shape[2:] != (whole, whole):
            count = len(self.manifest.classes)
            raise self._other_size(raw, (whole, whole, count) if channels_last else (count, whole, whole))
        values = values[:, :, inner, inner]
        # One by one: what is made on the way takes several times as much as they do.
        return np.stack([self._likeliest(each) for each in values])

    def _likeliest(self, values: Tensor) -> Labels:
        """Of one tile, classes × rows × columns."""
        probabilities = class_probabilities(values.astype(np.float32), self.manifest, axis=0, model=self.model, unit="pixel")
        return (taken(probabilities, self.manifest.classes, self.manifest.thresholds, 0) + 1).astype(np.uint8)

    def _of_size(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        if values.shape[1:] != shape:
            raise self._other_size(values, shape)
        return values

    def _other_size(self, values: Tensor, expected: tuple[int, ...]) -> ConfigurationError:
        return ConfigurationError(
            f"{self.model} puts out {list(values.shape[1:])} a tile; {list(expected)} were expected. "
            f"Say layout and output_stride in {FILE} as the network has them; an output without the edges of its tile cannot be used."
        )

    def _checked(self, chosen: NDArray[np.int64]) -> Labels:
        classes = len(self.manifest.classes)
        if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < classes:
            raise ConfigurationError(f"{self.model} puts out classes up to {int(chosen.max())}, and {FILE} names {classes} classes.")
        return (chosen + 1).astype(np.uint8)


class SlideSegmentation:
    """One run of a segmenter over one slide. The mask waits on disk."""

    def __init__(self, *, segmenter: TileSegmenter, plan: AnalysisPlan, slide: Slide, normalise: Normaliser | None = None) -> None:
        """`plan`: the segmenter's, by which the slide was surveyed."""
        self._segmenter = segmenter
        self._plan = plan
        self._grid = slide.grid
        self._normalise = normalise
        self._tissue = slide.tissue
        stride = segmenter.manifest.output_stride
        self._size = -(-slide.grid.width // stride), -(-slide.grid.height // stride)
        rows, columns = -(-slide.grid.height // plan.tile_size), -(-slide.grid.width // plan.tile_size)
        self._numbers = np.full((rows, columns), -1, np.int64)
        self._numbers[places_of(slide.tiles)] = np.arange(len(slide.tiles))
        self._spill = Spill(len(slide.tiles))
        # Pixels of each tile by class, those of none first.
        self._counts = np.zeros((rows, columns, len(segmenter.manifest.classes) + 1), np.int32)
        self._sharpness = TileSharpness(slide, plan)
        # Pixels of the positive class by cell of the tissue mask; a cell is so many pixels of the output, and may lie in several tiles.
        self._cell = plan.cell // stride
        self._heat: NDArray[np.float32] = np.zeros(slide.tissue.mask.shape, np.float32)
        self._heating = threading.Lock()

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """As the segmenter takes them."""
        return self._segmenter.inputs(tiles, self._normalise)

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """The mask of each tile's centre, packed: `sizes` by tile and the bytes of all; and how sharp they are."""
        packed = [zlib.compress(labels.tobytes(), _LEVEL) for labels in self._segmenter.labels(outputs, len(tiles))]
        return {
            "sizes": np.array([len(each) for each in packed], np.int32),
            "masks": np.frombuffer(b"".join(packed), np.uint8),
            **self._sharpness.of(tiles),
        }

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Put the masks to the others, and count their classes."""
        places = places_of(tiles)
        self._sharpness.put(tiles, kept)
        ends = np.cumsum(kept["sizes"], dtype=np.int64)
        for index, (row, column) in enumerate(zip(*(axis.tolist() for axis in places), strict=True)):
            record = kept["masks"][ends[index] - kept["sizes"][index] : ends[index]].tobytes()
            self._spill.put(int(self._numbers[row, column]), record)
            labels = self._cut(record, row, column)
            self._counts[row, column] = np.bincount(labels.reshape(-1), minlength=self._counts.shape[2])
            self._take_heat(labels, row, column)

    def findings(self) -> Findings:
        """Areas by class, the mask, and its outlines."""
        manifest = self._segmenter.manifest
        return Findings(
            measures=self._measures(),
            notes=(f"Classes are those of {FILE} beside the model, pixel by pixel, of tiles that have tissue.",),
            heat=Heat(
                values=self._shares(),
                scale=(self._tissue.grid.scale_x, self._tissue.grid.scale_y),
                top=1.0,
            ),
            points=np.empty((0, 2)),
            shapes=self._shapes,
            figures=self._figures,
            labels=LabelMap(
                width=self._size[0],
                height=self._size[1],
                scale=self._scale,
                edge=self._segmenter.edge,
                classes=manifest.classes,
                block=self._block,
            ),
        )

    @property
    def _scale(self) -> tuple[float, float]:
        """Level-0 pixels per pixel of the mask."""
        stride = self._segmenter.manifest.output_stride
        return stride * self._grid.scale_x, stride * self._grid.scale_y

    def _block(self, row: int, column: int) -> Labels | None:
        number = int(self._numbers[row, column])
        record = self._spill.get(number) if number >= 0 else None
        return None if record is None else self._cut(record, row, column)

    def _cut(self, record: bytes, row: int, column: int) -> Labels:
        """A tile's mask, less what lies past the slide's edge."""
        edge = self._segmenter.edge
        labels = np.frombuffer(zlib.decompress(record), np.uint8).reshape(edge, edge)
        return labels[: self._size[1] - row * edge, : self._size[0] - column * edge]

    def _take_heat(self, labels: Labels, row: int, column: int) -> None:
        """Count pixels of the positive class in the cells that a tile lies on."""
        sums: NDArray[np.int64] = (labels == self._segmenter.manifest.heat_class + 1).astype(np.int64)
        corner = [place * self._segmenter.edge for place in (row, column)]
        # Rows, then columns as rows.
        for begin in corner:
            sums = np.add.reduceat(sums, [0, *range(self._cell - begin % self._cell, len(sums), self._cell)], axis=0).T
        top, left = (begin // self._cell for begin in corner)
        with self._heating:
            window = self._heat[top : top + sums.shape[0], left : left + sums.shape[1]]
            window += sums[: window.shape[0], : window.shape[1]]

    def _shares(self) -> NDArray[np.float32]:
        """Of the pixels of each cell that were analysed, those of the positive class; NaN where there is nothing to show."""
        shares = np.full(self._heat.shape, np.nan, np.float32)
        rows, columns = self._heat.shape
        analysed = cell_lines(
            self._numbers >= 0, cell=self._segmenter.edge, size=self._cell, most=(rows * self._cell, columns * self._cell)
        )
        for share, positive, seen, tissue in zip(shares, self._heat, analysed, self._tissue.mask, strict=True):
            np.divide(positive, seen, out=share, where=(seen > 0) & (tissue | (positive > 0)), casting="same_kind")
        return shares

    def _measures(self) -> dict[str, Json]:
        manifest = self._segmenter.manifest
        pixel_mm2 = self._grid.cell_mm2 * manifest.output_stride**2
        counts = self._counts.sum(axis=(0, 1), dtype=np.int64)
        total = int(counts.sum())
        mask_mpp = [side * manifest.output_stride for side in (self._grid.mpp_x, self._grid.mpp_y)]
        return {
            "positive_class": manifest.classes[manifest.heat_class],
            "segmented_mm2": round(total * pixel_mm2, 6),
            "unclassified_mm2": round(int(counts[0]) * pixel_mm2, 6),
            "classes": [
                {
                    "name": name,
                    "area_mm2": round(int(count) * pixel_mm2, 6),
                    "area_share": round(int(count) / total, 6) if total else None,
                }
                for name, count in zip(manifest.classes, counts[1:], strict=True)
            ],
            "mask_mpp": [round(side, 6) for side in mask_mpp],
            "outline_mpp": [round(side * self._segmenter.edge / self._cells(), 6) for side in mask_mpp],
        }

    def _figures(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        places = places_of(tiles)
        counts = self._counts[places]
        totals = np.maximum(counts.sum(axis=1), 1)
        shares = {
            f"share({name})": (counts[:, index + 1] / totals).astype(np.float32)
            for index, name in enumerate(self._segmenter.manifest.classes)
        }
        return {**self._sharpness.figures(tiles), **shares}

    def _cells(self) -> int:
        """Of outlines, along each edge of a tile."""
        seen = np.argwhere(self._counts.sum(axis=2) > 0)
        rows, columns = (seen.max(axis=0) - seen.min(axis=0) + 1).tolist() if len(seen) else (1, 1)
        return polygons.cells_of(rows, columns, self._segmenter.edge)

    def _raster(self, seen: NDArray[np.int64], cells: int) -> Labels:
        """The mask from the first tile that was analysed to the last, so many cells a tile along each axis."""
        manifest, edge = self._segmenter.manifest, self._segmenter.edge
        first, last = seen.min(axis=0), seen.max(axis=0)
        raster = np.zeros(tuple((last - first + 1) * cells), np.uint8)
        for row, column in seen.tolist():
            labels = self._block(row, column)
            if labels is not None:
                small = labels if cells == edge else polygons.reduced(labels, polygons.lines(edge, cells), len(manifest.classes))
                top, left = (row - first[0]) * cells, (column - first[1]) * cells
                raster[top : top + small.shape[0], left : left + small.shape[1]] = small
        return raster

    def _shapes(self) -> Iterator[Shape]:
        """Outlines of each class but the background, over the whole mask at once, so that tiles leave no seams in them."""
        seen = np.argwhere(self._counts.sum(axis=2) > 0)
        if not len(seen):
            return
        manifest, cells = self._segmenter.manifest, self._cells()
        raster = self._raster(seen, cells)
        down, across = (
            np.minimum(polygons.lines(self._segmenter.edge, cells, first=first, count=last - first + 1), most)
            for first, last, most in zip(seen.min(axis=0), seen.max(axis=0), self._size[::-1], strict=True)
        )
        placed = partial(polygons.placed, scale=self._scale, most=(self._grid.slide_width, self._grid.slide_height))
        pixel_um2 = self._grid.cell_mm2 * 1e6 * manifest.output_stride**2
        least = manifest.least_area_um2 / pixel_um2
        for index, name in enumerate(manifest.classes):
            if name != manifest.background:
                for outline in polygons.outlines(raster == index + 1, across=across, down=down, least=least):
                    yield Shape(
                        corners=placed(outline.shell),
                        holes=tuple(placed(hole) for hole in outline.holes),
                        classification=name,
                        colour=colour_of(name, manifest.classes, manifest.colors),
                        measurements={"Area µm²": round(outline.area * pixel_um2, 2)},
                    )
