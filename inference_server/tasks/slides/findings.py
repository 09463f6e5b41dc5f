"""The port that every analysis of tiles fulfils, and what it hands to the artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.values import Pixels

# One value a tile.
Column = NDArray[np.float32] | NDArray[np.int32] | list[str]
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
    # Edge of a cell of the tissue mask, in pixels; divides tile_size.
    cell: int
    # A tile is analysed when more than this share of it is tissue.
    least_tissue: float
    # Most tiles of one model call.
    batch: int
    # Whether the model holds weights that were learned from data.
    learned_weights: bool


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Values over the cells of a slide, for pictures."""

    # Rows × columns; NaN where there is nothing to show.
    values: NDArray[np.float64]
    # Level-0 pixels per cell along x and y.
    scale: tuple[float, float]
    # Value that takes the last colour; 0 takes the first.
    top: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One feature for QuPath, in level-0 pixels of the slide's corner."""

    # One point (x, y), or the corners of a polygon, not closed.
    corners: tuple[tuple[float, float], ...]
    classification: str
    # Red, green, blue, 0 to 255.
    colour: tuple[int, int, int]
    # Measurements by name.
    measurements: Mapping[str, float]


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
    # Features in reading order, made one by one.
    shapes: Iterator[Shape]
    # Figures of tiles by name, in the order of the tiles; has all its names also for no tiles.
    figures: Callable[[Sequence[Tile]], Mapping[str, Column]]


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
        """Sum up: the same for the same slide, whatever the order of the tiles."""
