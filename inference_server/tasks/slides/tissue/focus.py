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

from inference_server.tasks.slides.tissue.cells import Mask, stripes
from inference_server.tasks.slides.tissue.values import TissuePlane
from inference_server.tasks.slides.values import Pixels

# Detail of about 1 µm, over that of about 2 µm, below which a block is blurred. Of sharp H&E 1 to 2 % lie below, of H&E blurred by
# σ 1 µm all: docs/slides.md. A fraction of 64, so that products are exact.
LEAST_RATIO = 29 / 64
# Fine detail over what the green channel absorbs, in grey levels below 255, below which it is noise: nothing else is left.
LEAST_CONTRAST = 1 / 16
# Fine pixels along the edge of a block.
_BLOCK = 8
# Pixels of tiles that are judged at once: what is computed of them stays in a core's cache.
_PORTION = 2**19
# A block takes the majority of the tissue in the 5 × 5 blocks around it (40 µm).
_WINDOW = 5
# Blocks beyond a block that it sees for it.
REACH = _WINDOW // 2

# Tiles × rows × columns.
Greens = NDArray[np.uint8]
Planes = NDArray[np.float32]


def fine_edge(mpp: float) -> int:
    """Pixels along the edge of the means whose detail is the fine one: of about 1 µm, a power of two, and one pixel at least."""
    return int(2 ** max(round(math.log2(1 / mpp)), 0))


def block_edge(mpp: float) -> int:
    """Pixels along the edge of a block: 5.7 to 11.3 µm where a pixel is 1.4 µm or less."""
    return _BLOCK * fine_edge(mpp)


def blurred_blocks(tiles: Pixels, *, halo: int, mpp: float) -> NDArray[np.bool_]:
    """Tiles × rows × columns of the whole blocks in the tiles' core, [count, rows, columns]; see `blurred_in`."""
    return blurred_in(greens(tiles), halo=halo, mpp=mpp)


def greens(tiles: Pixels) -> Greens:
    """The green channels of tiles, [count, rows, columns]."""
    count, rows, columns, _ = tiles.shape
    return np.asarray(cv2.extractChannel(tiles.reshape(-1, columns, 3), 1), np.uint8).reshape(count, rows, columns)


def blurred_in(planes: Greens, *, halo: int, mpp: float) -> NDArray[np.bool_]:
    """Rows × columns of the whole blocks in the core of tiles, of which `planes` are the green channels: [count, rows, columns].

    Blank ones count as blurred, but for pure white, of which nothing is absorbed. Every sum is one of whole numbers that float32 holds
    exactly, so that it does not matter how a slide is cut.
    """
    edge = fine_edge(mpp)
    blocks = max((planes.shape[1] - 2 * halo) // (edge * _BLOCK), 0)
    blurred = np.zeros((len(planes), blocks, blocks), np.bool_)
    some = max(_PORTION // max(planes.shape[1] ** 2, 1), 1)
    for start in range(0, len(planes) if blocks else 0, some):
        core = _core(planes[start : start + some], halo, blocks * _BLOCK * edge, 2 * edge)
        blurred[start : start + some] = _blurred(core, edge)
    return blurred


def _core(planes: Greens, halo: int, size: int, margin: int) -> Planes:
    """The pixels of blocks, and a margin around them: of the halo where that is as wide, else mirrored."""
    if halo >= margin:
        around = slice(halo - margin, halo + size + margin)
        return planes[:, around, around].astype(np.float32)
    core = planes[:, halo : halo + size, halo : halo + size]
    mirrored = np.empty((len(planes), size + 2 * margin, size + 2 * margin), np.float32)
    across = mirrored[:, margin:-margin]
    across[:, :, margin:-margin] = core
    across[:, :, :margin], across[:, :, -margin:] = core[:, :, margin - 1 :: -1], core[:, :, : -margin - 1 : -1]
    mirrored[:, :margin], mirrored[:, -margin:] = across[:, margin - 1 :: -1], across[:, : -margin - 1 : -1]
    return mirrored


def _blurred(around: Planes, edge: int) -> NDArray[np.bool_]:
    fine = _means(around, edge)
    coarse = _means(fine, 2)
    mean = _means(fine[:, 2:-2, 2:-2], _BLOCK)
    fine_detail, coarse_detail = _detail(fine, 2, _BLOCK), _detail(coarse, 1, _BLOCK // 2)
    blurred: NDArray[np.bool_] = (fine_detail < LEAST_RATIO * coarse_detail) | (fine_detail < LEAST_CONTRAST * (255 - mean))
    return blurred


def _means(planes: Planes, edge: int) -> Planes:
    """Of whole blocks of the planes, which lie one below the other for it."""
    count, rows, columns = planes.shape
    if edge == 1:
        return planes
    below = np.ascontiguousarray(planes).reshape(-1, columns)
    means = cv2.resize(below, (columns // edge, count * rows // edge), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).reshape(count, rows // edge, columns // edge)


def _detail(planes: Planes, margin: int, block: int) -> Planes:
    """Mean absolute Laplacian of each block within the margin, which is wider than it sees: no plane sees its neighbours."""
    edges = np.asarray(cv2.Laplacian(planes.reshape(-1, planes.shape[2]), cv2.CV_32F, ksize=1), np.float32).reshape(planes.shape)
    return _means(np.abs(edges[:, margin:-margin, margin:-margin]), block)


def blurred_tissue(blurred: Mask | TissuePlane[np.bool_], tissue: Mask) -> Mask:
    """Blocks of tissue around which most of the tissue is blurred: glass, which has no detail, does not count."""
    found = np.zeros_like(tissue)
    for rows in stripes(len(tissue)):
        first, inner = max(rows.start - REACH, 0), slice(min(rows.start, REACH), min(rows.start, REACH) + rows.stop - rows.start)
        around = tissue[first : rows.stop + REACH]
        counts, every = (_window_sums(each)[inner] for each in (blurred[first : rows.stop + REACH] & around, around))
        found[rows] = tissue[rows] & (2 * counts > every)
    return found


def _window_sums(mask: Mask) -> NDArray[np.uint8]:
    window = (_WINDOW, _WINDOW)
    return np.asarray(cv2.boxFilter(mask.view(np.uint8), -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT), np.uint8)
