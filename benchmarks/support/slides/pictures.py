"""What large slides show, tissue that is painted or cut from a real slide, where it lies, and how they describe themselves."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from tests.support.slides.painted import paint, scattered

TILE = 256
# Tiles along each side of the picture that repeats.
PERIOD = 7
_ISLANDS = 12
# Longest side of the picture in which the densest tissue is sought.
_SEARCHED = 128


@functools.cache
def painted(*, tissue: bool) -> NDArray[np.uint8]:
    """Tissue with nuclei, or glass; `PERIOD` tiles along each side."""
    side = PERIOD * TILE
    if not tissue:
        return paint(side, side, tissue=None, noise=1.5)
    nuclei = scattered(1500, within=(12, 12, side - 12, side - 12), apart=22)
    return paint(side, side, tissue=(0, 0, side, side), nuclei=nuclei, radius=9.0, noise=5.0)


def picture(source: Path | None) -> NDArray[np.uint8]:
    """Tissue, `PERIOD` tiles along each side. A smaller source is mirrored until it fills them."""
    if source is None:
        return painted(tissue=True)
    side = PERIOD * TILE
    with openslide.OpenSlide(source) as slide:
        width, height = (min(side, each) for each in slide.dimensions)
        region = slide.read_region(_densest(slide, width, height), 0, (width, height))
    # What was never scanned is glass.
    picture = np.asarray(Image.alpha_composite(Image.new("RGBA", region.size, (255, 255, 255, 255)), region).convert("RGB"))
    return np.pad(picture, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")


def _densest(slide: openslide.OpenSlide, width: int, height: int) -> tuple[int, int]:
    """The corner of the darkest part of this size, in pixels of level 0: real slides begin with glass."""
    small = 255 - np.asarray(slide.get_thumbnail((_SEARCHED, _SEARCHED)).convert("L")).astype(np.int64)
    scale = slide.dimensions[0] / small.shape[1], slide.dimensions[1] / small.shape[0]
    across, down = max(int(width / scale[0]), 1), max(int(height / scale[1]), 1)
    sums = np.lib.stride_tricks.sliding_window_view(small, (down, across)).sum(axis=(2, 3))
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return min(int(column * scale[0]), slide.dimensions[0] - width), min(int(row * scale[1]), slide.dimensions[1] - height)


def islands(across: int, share: float) -> NDArray[np.bool_]:
    """Which of `across` × `across` squares are tissue: round places that grow together until they cover the share of all."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[0:across, 0:across] / across
    places = random.uniform(0.1, 0.9, (_ISLANDS, 2))
    weights = random.uniform(0.5, 1.5, _ISLANDS)
    height = sum(w * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.006) for (y, x), w in zip(places, weights, strict=True))
    chosen: NDArray[np.bool_] = height > np.quantile(height, 1 - share)
    return chosen


def aperio_description(edge: int, *, mpp: float, rgb_components: bool, quality: int) -> str:
    """What Aperio's scanners write into the first directory of a slide."""
    stored = f"JPEG/{'RGB' if rgb_components else 'YCC'} Q={quality}"
    return f"Aperio Image Library v11\r\n{edge}x{edge} ({TILE}x{TILE}) {stored}|AppMag = {10 / mpp:g}|MPP = {mpp}"
