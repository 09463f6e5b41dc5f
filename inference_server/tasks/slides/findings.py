"""The port that every analysis of tiles fulfils, and what it hands to the artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.scheduler.port import Caller, Inference
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.tissue.values import TissuePlane
from inference_server.tasks.slides.values import Pixels

# One value a tile.
Column = NDArray[np.float32] | NDArray[np.int32] | list[str]
# A ring of (x, y), not closed.
Corners = tuple[tuple[float, float], ...]
# What a report may hold.
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, kw_only=True)
class AnalysisPlan:
    """How a model wants its tiles."""

    # The model's name in the repository.
    model: str
    # Outputs to ask for; empty for all.
    outputs: tuple[str, ...]
    # Micrometres per pixel.
    mpp: float
    # Edge of a tile's core, and pixels read beyond each side of it.
    tile_size: int
    halo: int
    # Edge of a cell of the tissue mask, in pixels.
    cell: int
    # A tile is analysed when more than this share of it is tissue.
    least_tissue: float
    # Most tiles of one model call.
    batch: int
    # Whether the model holds weights that were learned from data.
    learned_weights: bool
    # The analysis as it is asked for; empty when it has the model's name.
    analysis: str = ""
    # Edge of a core beyond which the model is called for parts of a tile, each with its halo; 0 where it must see a tile whole. Only for
    # models of pixels that see no further than the halo: parts then give what the whole would.
    most_edge: int = 0
    # How many times as much a pixel takes while its tile is under way as one of usual models: of those that put out many values for it.
    weight: int = 1
    # Whether what has the colours of ink is tissue, as of stains that have them.
    keeps_ink: bool = False
    # Names of artifacts that it has beside those of all.
    extras: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The analysis as it is asked for."""
        return self.analysis or self.model


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Values over the cells of a slide, for pictures."""

    # Rows × columns; NaN where there is nothing to show.
    values: NDArray[np.floating] | TissuePlane[np.float32]
    # Level-0 pixels per cell along x and y.
    scale: tuple[float, float]
    # Value that takes the last colour; 0 takes the first.
    top: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One polygon for QuPath, in level-0 pixels of the slide's corner."""

    # Of the polygon, three at least.
    corners: Corners
    classification: str
    # Red, green, blue, 0 to 255.
    colour: tuple[int, int, int]
    # Measurements by name.
    measurements: Mapping[str, float]
    # What is cut out of the polygon.
    holes: tuple[Corners, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Points:
    """Many features of one point each, and of the same class."""

    # Count × (x, y) in level-0 pixels of the slide's corner.
    places: NDArray[np.float64]
    classification: str
    # Red, green, blue, 0 to 255.
    colour: tuple[int, int, int]
    # Measurements by name, one value a point.
    measurements: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Classes of a slide's pixels, kept in square blocks."""

    # Pixels of the mask, from the slide's corner.
    width: int
    height: int
    # Level-0 pixels per pixel along x and y.
    scale: tuple[float, float]
    # Edge of a block in pixels.
    edge: int
    # Names; a pixel of the first class is 1.
    classes: tuple[str, ...]
    # The block of a row and column, uint8, 0 where there is no class; None where nothing was analysed.
    block: Callable[[int, int], NDArray[np.uint8] | None]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """One vector a tile, kept on disk."""

    # Numbers of a vector.
    features: int
    dtype: np.dtype[np.floating]
    # Tiles × features, in the order of the tiles.
    read: Callable[[Sequence[Tile]], NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an analysis found on a whole slide."""

    # Figures of the report, under their names.
    measures: Mapping[str, Json]
    # Caveats of the report.
    notes: tuple[str, ...]
    heat: Heat
    # Points to draw when the picture is fine enough: count × (x, y) in level-0 pixels.
    points: NDArray[np.float64]
    # Features in reading order, made a few at a time, anew at each call.
    shapes: Callable[[], Iterator[Shape | Points]]
    # Figures of tiles by name, in the order of the tiles; has all its names also for no tiles.
    figures: Callable[[Sequence[Tile]], Mapping[str, Column]]
    # Vectors of the tiles, of an embedder.
    vectors: Vectors | None = None
    # Classes of the pixels, of a segmenter.
    labels: LabelMap | None = None


@runtime_checkable
class Concluding(Protocol):
    """An analysis with a last step over all tiles together."""

    async def conclude(self, inference: Inference, caller: Caller) -> None:
        """Take it, before `findings`. Raises as `Inference.infer` does."""


class TileAnalysis(Protocol):
    """One run of an analysis over the tiles of one slide."""

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""

    def inputs(self, tiles: Pixels) -> Tensors:
        """The model's input from RGB tiles with their halo, [count, rows, columns, 3]."""

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """What is kept of the model's answer for these tiles: small, and all that `collect` needs, so that checkpoints save it as it is."""

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Take up what was kept of these tiles, now or by an earlier run. Called from threads, at most once for each tile, in any order."""

    def findings(self) -> Findings:
        """Sum up, once: the same for the same slide, whatever the order of the tiles. What was collected need not be held any more."""
