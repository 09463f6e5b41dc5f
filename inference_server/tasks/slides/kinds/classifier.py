"""Any tile classifier of the repository, described by its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan, Column, Findings, Heat, Shape
from inference_server.tasks.slides.kinds.stains import Normaliser
from inference_server.tasks.slides.kinds.tile_model import (
    TileModel,
    class_probabilities,
    colour_of,
    doubt,
    rectangle,
    taken,
)
from inference_server.tasks.slides.kinds.tile_sharpness import TileSharpness
from inference_server.tasks.slides.manifest import FILE, TileClassifierManifest
from inference_server.tasks.slides.outputs.number_text import rounded
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile, places_of
from inference_server.tasks.slides.values import Pixels

# Where no class reaches its threshold.
UNCLASSIFIED = "unclassified"
# Tiles whose features are made at once.
_PORTION = 256


class TileClassifier(TileModel):
    """How one model takes tiles, and what its output means."""

    def __init__(self, *, manifest: TileClassifierManifest, facts: ModelFacts) -> None:
        """Raises `ConfigurationError` when the manifest does not fit the model."""
        super().__init__(manifest=manifest, facts=facts)
        self.manifest: TileClassifierManifest = manifest

    def probabilities(self, outputs: Mapping[str, Tensor], tiles: int) -> NDArray[np.float64]:
        """Of so many tiles, tiles × classes. Raises `ConfigurationError` when the output has another size."""
        raw = self.values(outputs, tiles)
        values = np.asarray(raw, np.float64).reshape(raw.shape[0], -1)
        return np.asarray(class_probabilities(values, self.manifest, axis=1, model=self.model, unit="tile"), np.float64)

    def taken(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """The class of each tile; -1 where none reaches its threshold."""
        return taken(probabilities, self.manifest.classes, self.manifest.thresholds, 1)


class SlideClassification:
    """One run of a classifier over one slide."""

    def __init__(self, *, classifier: TileClassifier, plan: AnalysisPlan, slide: Slide, normalise: Normaliser | None = None) -> None:
        """`plan`: the classifier's, by which the slide was surveyed."""
        self._classifier = classifier
        self._plan = plan
        self._grid = slide.grid
        self._normalise = normalise
        tissue = slide.tissue
        # Tissue of each tile, in mm².
        self._tissue = tissue.areas(slide.grid, plan.tile_size)
        # Rows × columns × classes; NaN where there was no tile.
        self._probabilities = np.full((*self._tissue.shape, len(classifier.manifest.classes)), np.nan)
        self._sharpness = TileSharpness(slide, plan)

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """As the classifier takes them."""
        return self._classifier.inputs(tiles, self._normalise)

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """The `probabilities` of each tile, and how sharp it is."""
        return {"probabilities": self._classifier.probabilities(outputs, len(tiles)), **self._sharpness.of(tiles)}

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Keep the figures of each tile."""
        self._probabilities[places_of(tiles)] = kept["probabilities"]
        self._sharpness.put(tiles, kept)

    def findings(self) -> Findings:
        """Areas of tissue by the likeliest class, and means weighted by tissue."""
        manifest = self._classifier.manifest
        seen = np.isfinite(self._probabilities[..., 0])
        values, weights = self._probabilities[seen], self._tissue[seen]
        total = float(weights.sum())
        likeliest = self._classifier.taken(values) if len(values) else np.empty(0, np.int64)
        areas = [float(weights[likeliest == index].sum()) for index in range(len(manifest.classes))]
        unclassified = float(weights[likeliest < 0].sum())
        means = (values * weights[:, None]).sum(axis=0) / total if total else [None] * len(manifest.classes)
        return Findings(
            measures={
                "positive_class": manifest.classes[manifest.heat_class],
                "classified_tissue_mm2": round(total - unclassified, 6),
                "unclassified_tissue_mm2": round(unclassified, 6),
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
            notes=(
                f"Classes are those of {FILE} beside the model; a tile's tissue counts for its likeliest class.",
                *doubt(values, manifest),
            ),
            heat=Heat(
                values=self._probabilities[..., manifest.heat_class],
                scale=(self._plan.tile_size * self._grid.scale_x, self._plan.tile_size * self._grid.scale_y),
                top=1.0,
            ),
            points=np.empty((0, 2)),
            shapes=self._shapes,
            figures=self._figures,
        )

    def _figures(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        classes = self._classifier.manifest.classes
        values = self._probabilities[places_of(tiles)]
        likeliest = self._classifier.taken(values).tolist() if len(tiles) else []
        return {
            **self._sharpness.figures(tiles),
            "class": [classes[index] if index >= 0 else UNCLASSIFIED for index in likeliest],
            **{f"p({name})": values[:, index].astype(np.float32) for index, name in enumerate(classes)},
        }

    def _shapes(self) -> Iterator[Shape]:
        manifest, size = self._classifier.manifest, self._plan.tile_size
        names = [f"p({name})" for name in manifest.classes]
        places = np.argwhere(np.isfinite(self._probabilities[..., 0]))
        for start in range(0, len(places), _PORTION):
            some = places[start : start + _PORTION]
            values = self._probabilities[tuple(some.T)]
            told, likeliest = rounded(values, 6).tolist(), self._classifier.taken(values).tolist()
            for (row, column), chosen, probabilities in zip(some.tolist(), likeliest, told, strict=True):
                if chosen >= 0:
                    yield Shape(
                        corners=rectangle(row, column, size, self._grid),
                        classification=manifest.classes[chosen],
                        colour=colour_of(manifest.classes[chosen], manifest.classes, manifest.colors),
                        measurements=dict(zip(names, probabilities, strict=True)),
                    )
