"""Which tissue is out of focus, on blocks of about 8 µm (6 to 11), told from its own detail at two scales.

Blur takes fine detail first, whatever the contrast. Of what is sharp, the amplitude falls with frequency as about 1 / f (Field and Brady
1997, Vision Res 37:3367), so that neighbouring octaves have about as much detail; the steeper its fall, the more it is blurred (the slope
of the power spectrum: Bray 2012, J Biomol Screen 17:266). Detail is the mean absolute Laplacian of the green channel.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.masks import Mask, stripes
from inference_server.tasks.slides.tissue_values import TissuePlane
from inference_server.tasks.slides.values import Pixels

# Detail of about 1 µm, over that of about 2 µm, below which a block is blurred. Of sharp H&E 1 to 2 % lie below, of H&E blurred by
# σ 1 µm all: docs/slides.md. A fraction of 64, so that products are exact.
LEAST_RATIO = 29 / 64
# Fine detail over what the green channel absorbs, in grey levels below 255, below which it is noise: nothing else is left.
LEAST_CONTRAST = 1 / 16
# Fine pixels along the edge of a block.
_BLOCK = 8
# A block takes the majority of the tissue in the 5 × 5 blocks around it (40 µm).
_WINDOW = 5


def fine_edge(mpp: float) -> int:
    """Pixels along the edge of the means whose detail is the fine one: of about 1 µm, a power of two, and one pixel at least."""
    return int(2 ** max(round(math.log2(1 / mpp)), 0))


def block_edge(mpp: float) -> int:
    """Pixels along the edge of a block: 5.7 to 11.3 µm where a pixel is 1.4 µm or less."""
    return _BLOCK * fine_edge(mpp)


def blurred_blocks(tiles: Pixels, *, halo: int, mpp: float) -> NDArray[np.bool_]:
    """Tiles × rows × columns of the whole blocks in the tiles' core, [count, rows, columns]; see `blurred_in`."""
    return np.array([blurred_in(cv2.extractChannel(tile, 1), halo=halo, mpp=mpp) for tile in tiles], np.bool_)


def blurred_in(green: NDArray[np.uint8], *, halo: int, mpp: float) -> Mask:
    """Rows × columns of the whole blocks in the core of a tile, of which `green` is the green channel.

    Blank ones count as blurred, but for pure white, of which nothing is absorbed. Every sum is one of whole numbers that float32 holds
    exactly, so that it does not matter how a slide is cut.
    """
    edge = fine_edge(mpp)
    blocks = (green.shape[0] - 2 * halo) // (edge * _BLOCK)
    if not blocks:
        return np.zeros((0, 0), np.bool_)
    size, margin = blocks * _BLOCK * edge, 2 * edge
    if halo >= margin:
        around = green[halo - margin : halo + size + margin, halo - margin : halo + size + margin]
    else:
        core = green[halo : halo + size, halo : halo + size]
        around = np.asarray(cv2.copyMakeBorder(core, margin, margin, margin, margin, cv2.BORDER_REFLECT), np.uint8)
    fine = _means(around.astype(np.float32), edge)
    coarse = _means(fine, 2)
    mean = _means(fine[2:-2, 2:-2], _BLOCK)
    fine_detail, coarse_detail = _detail(fine, 2, _BLOCK), _detail(coarse, 1, _BLOCK // 2)
    blurred: Mask = (fine_detail < LEAST_RATIO * coarse_detail) | (fine_detail < LEAST_CONTRAST * (255 - mean))
    return blurred


def _means(plane: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Of whole blocks of the plane."""
    size = plane.shape[1] // edge, plane.shape[0] // edge
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _detail(plane: NDArray[np.float32], margin: int, block: int) -> NDArray[np.float32]:
    """Mean absolute Laplacian of each block within the margin."""
    edges = np.abs(cv2.Laplacian(plane, cv2.CV_32F, ksize=1))[margin:-margin, margin:-margin]
    return _means(edges, block)


def blurred_tissue(blurred: Mask | TissuePlane[np.bool_], tissue: Mask) -> Mask:
    """Blocks of tissue around which most of the tissue is blurred: glass, which has no detail, does not count."""
    found = np.zeros_like(tissue)
    reach = _WINDOW // 2
    for rows in stripes(len(tissue)):
        first, inner = max(rows.start - reach, 0), slice(min(rows.start, reach), min(rows.start, reach) + rows.stop - rows.start)
        around = tissue[first : rows.stop + reach]
        counts, every = (_window_sums(each)[inner] for each in (blurred[first : rows.stop + reach] & around, around))
        found[rows] = tissue[rows] & (2 * counts > every)
    return found


def _window_sums(mask: Mask) -> NDArray[np.uint8]:
    window = (_WINDOW, _WINDOW)
    return np.asarray(cv2.boxFilter(mask.view(np.uint8), -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT), np.uint8)
