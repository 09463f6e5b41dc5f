"""Any tile embedder of the repository: one vector a tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan, Column, Findings, Heat, Shape, Vectors
from inference_server.tasks.slides.kinds.spill import Spill
from inference_server.tasks.slides.kinds.stains import Normaliser
from inference_server.tasks.slides.kinds.tile_model import TileModel, as_numbers_of, rectangle
from inference_server.tasks.slides.kinds.tile_sharpness import TileSharpness
from inference_server.tasks.slides.manifest import FILE, EmbedderManifest
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile, places_of
from inference_server.tasks.slides.values import Pixels

CLASSIFICATION = "Tile"
_COLOUR = (110, 110, 110)
# Vectors that are read from disk at once.
_PORTION = 4096
# Least top of the heatmap's colours, so that a slide of one kind of tile looks even.
_LEAST_TOP = 0.01


class TileEmbedder(TileModel):
    """How one model takes tiles, and how long its vectors are."""

    def __init__(self, *, manifest: EmbedderManifest, facts: ModelFacts) -> None:
        """Raises `ConfigurationError` when the manifest does not fit the model."""
        super().__init__(manifest=manifest, facts=facts)
        shape = next(spec.shape for spec in facts.outputs if spec.name == self.output)
        told = int(np.prod(shape[1:])) if min(shape[1:], default=-1) > 0 else 0
        if not manifest.features:
            self._check_told(shape, told)
        self.features = manifest.features or told
        self.dtype: np.dtype[np.floating] = np.dtype(manifest.precision)

    def _check_told(self, shape: Sequence[int], told: int) -> None:
        """Raise `ConfigurationError` where the network alone does not tell what a tile's vector is. `told`: its length; 0 if unknown."""
        where = f"{self.model} puts out {self.output} of the shape {list(shape)}"
        if sum(size > 1 for size in shape[1:]) > 1:
            raise ConfigurationError(
                f"{where}, more than a vector a tile. Export it with what makes one of them, such as the first (class) token or the mean; "
                f"or say as features in {FILE} how many values a tile has, to have them one after the other."
            )
        if not told:
            raise ConfigurationError(f"{where}, which does not tell how long a tile's vector is; say it as features in {FILE}.")

    def vectors(self, outputs: Mapping[str, Tensor], tiles: int) -> NDArray[np.floating]:
        """Of so many tiles, tiles × features.

        Raises `ConfigurationError` when the output has another size, or a value is beyond the precision.
        """
        raw = self.values(outputs, tiles)
        values = raw.reshape(raw.shape[0], -1)
        if values.shape[1] != self.features:
            raise ConfigurationError(f"{self.model} puts out {list(raw.shape[1:])} a tile; a vector of {self.features} was expected of it.")
        return as_numbers_of(self.dtype, values, source=self.model, way_out=f"Say precision float32 in {self.model}/{FILE}.")


class SlideEmbedding:
    """One run of an embedder over one slide. The vectors wait on disk."""

    def __init__(self, *, embedder: TileEmbedder, plan: AnalysisPlan, slide: Slide, normalise: Normaliser | None = None) -> None:
        """`plan`: the embedder's, by which the slide was surveyed."""
        self.embedder = embedder
        self.grid = slide.grid
        self.tiles = slide.tiles
        self._plan = plan
        self._normalise = normalise
        tissue = slide.tissue
        self.tissue = tissue.areas(slide.grid, plan.tile_size)
        # The number of each tile among all, by row and column.
        self._numbers = np.full(self.tissue.shape, -1, np.int64)
        self._numbers[places_of(slide.tiles)] = np.arange(len(slide.tiles))
        self._spill = Spill(len(slide.tiles))
        self._sharpness = TileSharpness(slide, plan)

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """As the embedder takes them."""
        return self.embedder.inputs(tiles, self._normalise)

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """The `vectors` of the tiles, and how sharp they are."""
        return {"vectors": self.embedder.vectors(outputs, len(tiles)), **self._sharpness.of(tiles)}

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Put the vectors to the others."""
        places = places_of(tiles)
        self._sharpness.put(tiles, kept)
        for number, vector in zip(self._numbers[places].tolist(), kept["vectors"], strict=True):
            self._spill.put(number, vector.astype(self.embedder.dtype).tobytes())

    def vectors(self, tiles: Sequence[Tile]) -> NDArray[np.floating]:
        """Tiles × features, from disk."""
        found = np.zeros((len(tiles), self.embedder.features), self.embedder.dtype)
        for index, number in enumerate(self._numbers[places_of(tiles)].tolist()):
            record = self._spill.get(number)
            if record is not None:
                found[index] = np.frombuffer(record, self.embedder.dtype)
        return found

    def findings(self) -> Findings:
        """How far each tile lies from the slide's mean vector: what looks unlike the rest stands out."""
        mean, distances = self._distances()
        shown = distances[np.isfinite(distances)]
        top = float(np.percentile(shown, 99)) if len(shown) else 0.0
        return Findings(
            measures={
                "features": self.embedder.features,
                "precision": self.embedder.dtype.name,
                "embedded_tissue_mm2": round(float(self.tissue[np.isfinite(distances)].sum()), 6),
                "mean_norm": round(float(np.sqrt((mean * mean).sum())), 6) if len(shown) else None,
                "mean_distance": round(float(shown.mean()), 6) if len(shown) else None,
            },
            notes=("Vectors have no meaning of their own. The distance is 1 less the cosine to the slide's mean vector.",),
            heat=Heat(values=distances, scale=self.scale, top=max(top, _LEAST_TOP)),
            points=np.empty((0, 2)),
            shapes=lambda: self._shapes(distances),
            figures=lambda tiles: {**self.quality(tiles), "distance": distances[places_of(tiles)].astype(np.float32)},
            vectors=self.kept,
        )

    @property
    def kept(self) -> Vectors:
        """The vectors, as artifacts take them."""
        return Vectors(features=self.embedder.features, dtype=self.embedder.dtype, read=self.vectors)

    @property
    def scale(self) -> tuple[float, float]:
        """Level-0 pixels per tile along x and y."""
        return self._plan.tile_size * self.grid.scale_x, self._plan.tile_size * self.grid.scale_y

    def quality(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        """What the pixels of tiles tell beside the vectors."""
        return self._sharpness.figures(tiles)

    def _distances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean vector, and 1 less the cosine to it by row and column; summed in the order of the tiles, not of the calls."""
        total = np.zeros(self.embedder.features)
        for _, values in self._portions():
            total += values.sum(axis=0)
        mean = total / max(len(self.tiles), 1)
        distances = np.full(self.tissue.shape, np.nan)
        for tiles, values in self._portions():
            norms = np.sqrt((values * values).sum(axis=1)) * np.sqrt((mean * mean).sum())
            cosines = np.divide((values * mean).sum(axis=1), norms, out=np.zeros_like(norms), where=norms > 0)
            distances[places_of(tiles)] = 1 - cosines
        return mean, distances

    def _portions(self) -> Iterator[tuple[Sequence[Tile], NDArray[np.float64]]]:
        for start in range(0, len(self.tiles), _PORTION):
            tiles = self.tiles[start : start + _PORTION]
            yield tiles, self.vectors(tiles).astype(np.float64)

    def _shapes(self, distances: NDArray[np.float64]) -> Iterator[Shape]:
        for row, column in np.argwhere(np.isfinite(distances)).tolist():
            yield Shape(
                corners=rectangle(row, column, self._plan.tile_size, self.grid),
                classification=CLASSIFICATION,
                colour=_COLOUR,
                measurements={"Distance": round(float(distances[row, column]), 6)},
            )
