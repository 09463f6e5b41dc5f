"""Any tile classifier of the repository, described by its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import ConfigurationError, InvalidInput
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan, Column, Findings, Heat, Shape
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.manifest import FILE, TileClassifierManifest
from inference_server.tasks.slides.tiling import Tile, cell_sums, places_of
from inference_server.tasks.slides.tissue import Tissue
from inference_server.tasks.slides.values import Pixels

# About the cell of the tissue mask, in µm.
_CELL_MICROMETRES = 8.0
_PIXELS_A_CALL = 16 * 256 * 256
# Okabe and Ito's colours, which readers without colour vision can tell apart.
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (240, 228, 66), (110, 110, 110))


class TileClassifier:
    """How one model takes tiles, and what its output means."""

    def __init__(self, *, manifest: TileClassifierManifest, facts: ModelFacts) -> None:
        """Raises `ConfigurationError` when the manifest does not fit the model."""
        self.manifest = manifest
        self.model = facts.name
        self._input = _tensor(facts, manifest.input, "input")
        self.output = _tensor(facts, manifest.output, "output")
        dtypes = {spec.name: spec.dtype for spec in facts.inputs}
        self._dtype = dtypes[self._input]
        self._limit = facts.max_batch_size or 1

    def plan(self, tile_size: int = 0) -> AnalysisPlan:
        """The plan. Raises `InvalidInput` for another tile size than the model's."""
        manifest = self.manifest
        if tile_size not in (0, manifest.tile_size):
            raise InvalidInput(f"tile_size is {tile_size}; {self.model} takes {manifest.tile_size} px. Leave it 0.")
        return AnalysisPlan(
            model=self.model,
            outputs=(self.output,),
            mpp=manifest.mpp,
            tile_size=manifest.tile_size,
            halo=0,
            cell=_cell(manifest),
            least_tissue=manifest.least_tissue,
            batch=max(min(_PIXELS_A_CALL // manifest.tile_size**2, self._limit), 1),
            learned_weights=True,
        )

    def inputs(self, tiles: Pixels) -> Tensors:
        """Normalised as the manifest says; a model of uint8 takes the pixels as they are."""
        values: Tensor = tiles
        if self._dtype != np.uint8:
            manifest = self.manifest
            scaled = tiles.astype(np.float32) * np.float32(manifest.scale)
            values = ((scaled - np.array(manifest.mean, np.float32)) / np.array(manifest.std, np.float32)).astype(self._dtype)
        if self.manifest.layout == "NCHW":
            values = np.ascontiguousarray(np.moveaxis(values, -1, 1))
        return {self._input: values}

    def probabilities(self, outputs: Mapping[str, Tensor]) -> NDArray[np.float64]:
        """Tiles × classes. Raises `ConfigurationError` when the output has another size."""
        raw = outputs[self.output]
        values = np.asarray(raw, np.float64).reshape(raw.shape[0], -1)
        if values.shape[1] != len(self.manifest.classes):
            raise ConfigurationError(
                f"{self.model} puts out {values.shape[1]} values a tile, and {FILE} names {len(self.manifest.classes)} classes."
            )
        if self.manifest.activation == "softmax":
            powers = np.exp(values - values.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        if self.manifest.activation == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-values)))
        return values


class SlideClassification:
    """One run of a classifier over one slide."""

    def __init__(self, *, classifier: TileClassifier, plan: AnalysisPlan, grid: Grid, tissue: Tissue) -> None:
        """`grid`: of the analysis; `tissue`: on cells that divide a tile."""
        self._classifier = classifier
        self._plan = plan
        self._grid = grid
        self._size = (grid.width, grid.height)
        # Tissue of each tile, in mm².
        self._tissue = cell_sums(tissue.mask * tissue.coverage * tissue.grid.cell_mm2, plan.tile_size // plan.cell)
        # Rows × columns × classes; NaN where there was no tile.
        self._probabilities = np.full((*self._tissue.shape, len(classifier.manifest.classes)), np.nan)
        self._sharpness = np.full(self._tissue.shape, np.nan, np.float32)

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """As the classifier takes them."""
        return self._classifier.inputs(tiles)

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """The `probabilities` and the `sharpness` of each tile."""
        return {
            "probabilities": self._classifier.probabilities(outputs),
            "sharpness": np.array([_sharpness(tile) for tile in tiles], np.float32),
        }

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Keep the figures of each tile."""
        places = places_of(tiles)
        self._probabilities[places] = kept["probabilities"]
        self._sharpness[places] = kept["sharpness"]

    def findings(self) -> Findings:
        """Areas of tissue by the likeliest class, and means weighted by tissue."""
        manifest = self._classifier.manifest
        seen = np.isfinite(self._probabilities[..., 0])
        values, weights = self._probabilities[seen], self._tissue[seen]
        total = float(weights.sum())
        likeliest = values.argmax(axis=1) if len(values) else np.empty(0, np.int64)
        areas = [float(weights[likeliest == index].sum()) for index in range(len(manifest.classes))]
        means = (values * weights[:, None]).sum(axis=0) / total if total else [None] * len(manifest.classes)
        return Findings(
            measures={
                "positive_class": manifest.classes[manifest.heat_class],
                "classified_tissue_mm2": round(total, 6),
                "classes": [
                    {
                        "name": name,
                        "area_mm2": round(area, 6),
                        "area_share": round(area / total, 6) if total else None,
                        "mean_probability": None if mean is None else round(float(mean), 6),
                    }
                    for name, area, mean in zip(manifest.classes, areas, means, strict=True)
                ],
            },
            notes=(f"Classes are those of {FILE} beside the model; a tile's tissue counts for its likeliest class.",),
            heat=Heat(
                values=self._probabilities[..., manifest.heat_class],
                scale=(self._plan.tile_size * self._grid.scale_x, self._plan.tile_size * self._grid.scale_y),
                top=1.0,
            ),
            points=np.empty((0, 2)),
            shapes=self._shapes(),
            figures=self._figures,
        )

    def _figures(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        classes = self._classifier.manifest.classes
        places = places_of(tiles)
        values = self._probabilities[places]
        likeliest = values.argmax(axis=1).tolist() if len(tiles) else []
        return {
            "sharpness": self._sharpness[places],
            "class": [classes[index] for index in likeliest],
            **{f"p({name})": values[:, index].astype(np.float32) for index, name in enumerate(classes)},
        }

    def _shapes(self) -> Iterator[Shape]:
        manifest, size = self._classifier.manifest, self._plan.tile_size
        for row, column in np.argwhere(np.isfinite(self._probabilities[..., 0])).tolist():
            values = self._probabilities[row, column]
            name = manifest.classes[int(values.argmax())]
            left, top = column * size * self._grid.scale_x, row * size * self._grid.scale_y
            right = min((column + 1) * size, self._size[0]) * self._grid.scale_x
            bottom = min((row + 1) * size, self._size[1]) * self._grid.scale_y
            yield Shape(
                corners=((left, top), (right, top), (right, bottom), (left, bottom)),
                classification=name,
                colour=manifest.colors.get(name, _COLOURS[manifest.classes.index(name) % len(_COLOURS)]),
                measurements={f"p({each})": round(float(value), 6) for each, value in zip(manifest.classes, values, strict=True)},
            )


def _sharpness(tile: Pixels) -> float:
    """Mean |Laplacian| of the green channel, in grey levels."""
    green = cv2.extractChannel(tile, 1)
    return float(cv2.norm(cv2.Laplacian(green, cv2.CV_16S, ksize=1), cv2.NORM_L1)) / green.size


def _cell(manifest: TileClassifierManifest) -> int:
    """The divisor of the tile that comes nearest to 8 µm."""
    divisors = [size for size in range(1, manifest.tile_size + 1) if manifest.tile_size % size == 0]
    return min(divisors, key=lambda size: abs(size * manifest.mpp - _CELL_MICROMETRES))


def _tensor(facts: ModelFacts, wanted: str, side: str) -> str:
    names = [spec.name for spec in (facts.inputs if side == "input" else facts.outputs)]
    if wanted and wanted not in names:
        raise ConfigurationError(f"{facts.name}/{FILE} names the {side} {wanted}; the model has: {', '.join(names)}.")
    if not wanted and len(names) > 1:
        raise ConfigurationError(f"{facts.name} has several {side}s ({', '.join(names)}); name one as {side} in {FILE}.")
    return wanted or names[0]
