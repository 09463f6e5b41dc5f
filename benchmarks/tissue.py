"""Tissue, ink, folds and blur on a folder of slides: as they are, paler, stained anew, blurred, noisy, and with strokes of ink on them.

Each share is of the picture, but for folds and blur, which are of its tissue. Of a slide the middle of its finest level is read, and
taken to have `--mpp`. A stroke covers 8 % of the picture: ink that is found takes the tissue under it, ink that is not adds tissue on
glass.

Run: python benchmarks/tissue.py DIR [--mpp 0.5] [--edge 2048]
"""

from __future__ import annotations

import argparse
import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.readers.image import facts_of
from inference_server.tasks.slides.tissue.focus import block_edge, blurred_blocks, blurred_tissue
from inference_server.tasks.slides.tissue.mask import Tissue, find_tissue
from inference_server.tasks.slides.values import Pixels
from tests.support.slides.he_fields import STAINS
from tests.support.slides.painted import INKS

WHITE = 243.0
PALER = 0.4, 0.15
BLURS = 0.5, 0.75, 1.0, 1.5, 2.0, 4.0
# Columns of a stroke, as shares of the width: on the picture, and on glass of the same size.
_STROKE = 0.46, 0.54


def slides_of(folder: Path, edge: int) -> Iterator[tuple[str, Pixels]]:
    """Name and pixels of what can be opened, in the order of names."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            picture = _middle(openslide.open_slide(path), edge)
        except (OSError, openslide.OpenSlideError):
            continue
        # What was not scanned is transparent.
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        yield path.name, np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB"))


def _middle(slide: openslide.AbstractSlide, edge: int) -> Image.Image:
    size = tuple(min(side, edge) for side in slide.dimensions)
    x, y = ((side - taken) // 2 for side, taken in zip(slide.dimensions, size, strict=True))
    return slide.read_region((x, y), 0, (size[0], size[1]))


def looks(pixels: Pixels, mpp: float) -> Iterator[tuple[str, Pixels]]:
    """The picture in all its forms, under their names."""
    light, density = pixels.astype(np.float32), -np.log10(np.maximum(pixels, 1) / WHITE)
    yield "as it is", pixels
    yield "JPEG at 40", _jpeg(pixels, 40)
    for times in PALER:
        yield f"{times} as dense", _pixels(WHITE * 10.0 ** -(times * density))
    for name in STAINS:
        yield f"stains: {name}", _pixels(WHITE * 10.0 ** -_stained(density, name))
    for sigma in BLURS:
        blurred = cv2.GaussianBlur(light, (0, 0), sigma / mpp)
        yield f"blurred, σ {sigma} µm", _pixels(blurred)
        if sigma in (1.0, 4.0):
            yield f"blurred, σ {sigma} µm, noise of 2, JPEG at 80", _jpeg(_pixels(blurred + _noise(blurred, 2)), 80)
    glass = np.full_like(light, WHITE - 1) + _noise(light, 1)
    for name, colour in INKS.items():
        for strength in (1.0, 0.5):
            kind = "" if strength == 1 else "thin "
            yield f"{kind}{name} ink on glass", _inked(glass, colour, strength)
        yield f"{name} ink on it", _inked(light, colour, 1.0)


def _noise(like: NDArray[np.float32], deviation: float) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0, deviation, like.shape)


def _stained(density: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Densities with QuPath's stains taken for others."""
    own, other = (np.array(STAINS[each]) for each in ("QuPath", name))
    residual = np.cross(*own) / np.linalg.norm(np.cross(*own))
    amounts = density @ np.linalg.inv(np.vstack([own, residual]))
    stained: NDArray[np.float64] = amounts @ np.vstack([other / np.linalg.norm(other, axis=1)[:, None], residual])
    return stained


def _inked(light: NDArray[np.float32], colour: tuple[int, int, int], strength: float) -> Pixels:
    marked = light.copy()
    start, end = (int(share * light.shape[1]) for share in _STROKE)
    marked[:, start:end] *= ((np.array(colour) / 255) ** strength).astype(np.float32)
    return _pixels(marked)


def _pixels(light: NDArray[np.floating]) -> Pixels:
    return np.clip(np.round(light), 0, 255).astype(np.uint8)


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def shares_of(pixels: Pixels, mpp: float) -> tuple[float, float, float | None, float | None]:
    """Tissue and ink of the picture; folds and blur of its tissue, None where there is none."""
    cell = block_edge(mpp)
    size = min(side // cell for side in pixels.shape[:2]) * cell
    square = pixels[:size, :size]
    cells = cv2.resize(square, (size // cell, size // cell), interpolation=cv2.INTER_AREA)
    tissue = asyncio.run(_tissue_of(cells, mpp * cell))
    count = np.count_nonzero(tissue.mask)
    (blocks,) = blurred_blocks(square[None], halo=0, mpp=mpp)
    blurred, folded = (np.count_nonzero(each) / count if count else None for each in (blurred_tissue(blocks, tissue.mask), tissue.folded))
    return tissue.share, float(tissue.pen.mean()), folded, blurred


async def _tissue_of(cells: Pixels, mpp: float) -> Tissue:
    height, width, _ = cells.shape
    grid = Grid(
        level=0, width=width, height=height, step_x=1, step_y=1, scale_x=1, scale_y=1, slide_width=width, slide_height=height,
        mpp_x=mpp, mpp_y=mpp,
    )  # fmt: skip
    return await find_tissue(facts_of("", cells, (mpp, mpp)), grid, cells)


def main() -> None:
    """Print a table for each slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mpp", type=float, default=0.5, help="micrometres per pixel, of all slides")
    parser.add_argument("--edge", type=int, default=2048, help="most pixels of a slide along each axis")
    given = parser.parse_args()
    console = Console()
    for name, pixels in slides_of(given.folder, given.edge):
        table = Table("Look", *(f"{each} share" for each in ("Tissue", "Ink", "Folded", "Blurred")), title=f"{name}, {given.mpp} µm/px")
        for look, drawn in looks(pixels, given.mpp):
            table.add_row(look, *("-" if share is None else f"{share:.4f}" for share in shares_of(drawn, given.mpp)))
        console.print(table)


if __name__ == "__main__":
    main()
