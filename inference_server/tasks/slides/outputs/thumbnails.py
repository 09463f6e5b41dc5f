"""A small picture of a slide, for the overlay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from inference_server.tasks.slides import overview
from inference_server.tasks.slides.grid import Grid, coarser
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import Pixels

_LARGEST = 2048
# Of a picture that are made at once.
_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture of the slide."""

    pixels: Pixels
    # Level-0 pixels per pixel along x and y.
    scale: tuple[float, float]
    # Micrometres per pixel.
    mpp: float


def from_cells(grid: Grid, cells: Pixels, cell: int) -> Thumbnail | None:
    """At most 2048 px, from the mean colours of tissue cells; None where they are too coarse. `cell`: grid pixels per cell."""
    if _factor(grid) < cell:
        return None
    times = -(-max(cells.shape[:2]) // _LARGEST)
    # Some rows at a time: Pillow has a copy of them, with four bytes a cell.
    rows = times * _ROWS
    stripes = [np.asarray(Image.fromarray(cells[start : start + rows]).reduce(times)) for start in range(0, len(cells), rows)]
    pixels = np.concatenate(stripes)
    whole = times * cell
    return Thumbnail(pixels=pixels, scale=(grid.scale_x * whole, grid.scale_y * whole), mpp=grid.mpp_x * whole)


async def read(regions: Regions, grid: Grid) -> Thumbnail:
    """At most 2048 px, read from the slide. Raises `InvalidSlide`, `Unavailable`."""
    small = coarser(regions.facts, grid, _factor(grid))
    return Thumbnail(pixels=await overview.read(regions, small), scale=(small.scale_x, small.scale_y), mpp=small.mpp_x)


def _factor(grid: Grid) -> int:
    return max(-(-max(grid.width, grid.height) // _LARGEST), 1)
