"""Slides of 100,000 × 100,000 px as scanners write them, made in a minute: a pyramid of few distinct tiles, each placed many times.

Tissue covers a few islands; the rest is glass. The picture repeats over the slide, so that levels fit each other to the pixel. It is
painted, or cut from a real slide.

Run: python benchmarks/large_slides.py large.svs [--kind rgb] [--edge 100000] [--mpp 0.25] [--source real.svs]
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from tests.support.slides import Tag, described, jpeg_tile, level_tags, paint, scattered, tables_tag, without_tables, write_tiff

EDGE = 100_000
TILE = 256
# Tiles along each side of the picture that repeats.
_PERIOD = 7
_ISLANDS = 12
_SHARE = 0.15
# Longest side of the picture in which the densest tissue is sought.
_SEARCHED = 128


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How tiles and file are stored."""

    rgb_components: bool
    bigtiff: bool


KINDS = {
    "rgb": Kind(rgb_components=True, bigtiff=False),
    "ycbcr": Kind(rgb_components=False, bigtiff=False),
    "bigtiff": Kind(rgb_components=True, bigtiff=True),
}


def write_large_slide(
    path: Path,
    *,
    edge: int = EDGE,
    kind: str = "rgb",
    mpp: float = 0.25,
    factor: int = 2,
    share: float = _SHARE,
    source: Path | None = None,
) -> Path:
    """Write one. `factor`: between levels, 2 or 4; `share`: of the tiles that are tissue; `source`: a slide to cut the tissue from."""
    drawing = _Drawing(edge=edge, kind=KINDS[kind], factor=factor, share=share, tissue=_picture(source))
    description = f"Aperio Image Library v11\r\n{edge}x{edge} ({TILE}x{TILE}) JPEG/RGB Q=80|AppMag = {10 / mpp:g}|MPP = {mpp}"
    return write_tiff(path, drawing.directories(description), big=KINDS[kind].bigtiff)


@functools.cache
def _painted(*, tissue: bool) -> NDArray[np.uint8]:
    side = _PERIOD * TILE
    if not tissue:
        return paint(side, side, tissue=None, noise=1.5)
    nuclei = scattered(1500, within=(12, 12, side - 12, side - 12), apart=22)
    return paint(side, side, tissue=(0, 0, side, side), nuclei=nuclei, radius=9.0, noise=5.0)


def _picture(source: Path | None) -> NDArray[np.uint8]:
    """Tissue, `_PERIOD` tiles along each side. A smaller source is mirrored until it fills them."""
    if source is None:
        return _painted(tissue=True)
    side = _PERIOD * TILE
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


class _Drawing:
    """The tiles of each level, drawn from the two pictures."""

    def __init__(self, *, edge: int, kind: Kind, factor: int, share: float, tissue: NDArray[np.uint8]) -> None:
        self._edge = edge
        self._kind = kind
        self._factor = factor
        across = -(-edge // TILE)
        self._tissue = _islands(across, share)
        # By reduction: tissue and glass.
        self._pictures = {1: (tissue, _painted(tissue=False))}

    def directories(self, description: str) -> Iterator[tuple[list[Tag], Iterator[bytes]]]:
        """Tags and tiles of each level, down to one that fits on a few tiles."""
        number, reduction = 0, 1
        while number == 0 or self._edge // reduction >= 2 * TILE:
            first = self._encoded(self._drawn(reduction, 0, 0))
            side = self._edge // reduction
            tags = level_tags(side, side, number=number, tile=TILE, compression=7, photometric=2 if self._kind.rgb_components else 6)
            tags += [tables_tag(first), *(described(description) if number == 0 else [])]
            yield tags, self._tiles(reduction)
            number, reduction = number + 1, reduction * self._factor

    def _tiles(self, reduction: int) -> Iterator[bytes]:
        across = -(-(self._edge // reduction) // TILE)
        known: dict[tuple[int, int, bytes], bytes] = {}
        for row in range(across):
            for column in range(across):
                window = self._window(reduction, row, column)
                key = (row * reduction % _PERIOD, column * reduction % _PERIOD, window.tobytes())
                if key not in known:
                    known[key] = without_tables(self._encoded(self._drawn(reduction, row, column)))
                yield known[key]

    def _window(self, reduction: int, row: int, column: int) -> NDArray[np.bool_]:
        """Which of the level-0 tiles below a tile are tissue."""
        return self._tissue[row * reduction : (row + 1) * reduction, column * reduction : (column + 1) * reduction]

    def _drawn(self, reduction: int, row: int, column: int) -> NDArray[np.uint8]:
        tissue, glass = self._reduced(reduction)
        side, small = tissue.shape[0], max(TILE // reduction, 1)
        rows, columns = ((np.arange(TILE) + start * TILE) % side for start in (row, column))
        mask = self._window(reduction, row, column).repeat(small, 0).repeat(small, 1)
        whole = np.zeros((TILE, TILE), bool)
        whole[: mask.shape[0], : mask.shape[1]] = mask[:TILE, :TILE]
        return np.where(whole[..., None], tissue[rows][:, columns], glass[rows][:, columns])

    def _reduced(self, reduction: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if reduction not in self._pictures:
            tissue, glass = (np.asarray(Image.fromarray(each).reduce(reduction)) for each in self._pictures[1])
            self._pictures[reduction] = (tissue, glass)
        return self._pictures[reduction]

    def _encoded(self, pixels: NDArray[np.uint8]) -> bytes:
        return jpeg_tile(np.ascontiguousarray(pixels), rgb_components=self._kind.rgb_components, quality=80)


def _islands(across: int, share: float) -> NDArray[np.bool_]:
    """Islands of tissue: round places that grow together until they cover the share of all tiles."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[0:across, 0:across] / across
    places = random.uniform(0.1, 0.9, (_ISLANDS, 2))
    weights = random.uniform(0.5, 1.5, _ISLANDS)
    height = sum(w * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.006) for (y, x), w in zip(places, weights, strict=True))
    chosen: NDArray[np.bool_] = height > np.quantile(height, 1 - share)
    return chosen


def main() -> None:
    """Write one slide and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="rgb")
    parser.add_argument("--edge", type=int, default=EDGE)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--factor", type=int, choices=(2, 4), default=2)
    parser.add_argument("--source", type=Path, help="slide to cut the tissue from; painted by default")
    given = parser.parse_args()
    write_large_slide(given.path, edge=given.edge, kind=given.kind, mpp=given.mpp, factor=given.factor, source=given.source)
    print(f"{given.path}: {given.path.stat().st_size / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
