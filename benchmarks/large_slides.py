"""Slides of 100,000 × 100,000 px as scanners write them: a few islands of tissue, painted or cut from a real slide, on glass.

Two writers make them. Ours, the default, takes seconds: it places few distinct tiles many times, and the picture repeats so that levels
fit each other to the pixel. libvips, through pyvips, takes a minute or more: it composes the slide while it writes it, in memory that grows
with the edge and not with the area. Of what it writes nothing is ours, down to the last tag: it shows that the reader reads what others
write. It has levels by 2 alone, glass without noise, by default 5 % tissue instead of 15 %, and R, G, B as components at quality 90 alone.

Run: python benchmarks/large_slides.py large.svs [--kind rgb] [--writer vips] [--edge 100000] [--share 0.05] [--mpp 0.25] [--source FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.support.choices import existing_file
from benchmarks.support.slides.pictures import PERIOD, TILE, aperio_description, islands, painted, picture
from tests.support.slides.painted import Tag, described, jpeg_tile, level_tags, tables_tag, without_tables, write_tiff

EDGE = 100_000
_QUALITY = 80
# Of the slide that is tissue, by writer.
_SHARES = {"own": 0.15, "vips": 0.05}


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
    share: float = _SHARES["own"],
    source: Path | None = None,
) -> Path:
    """Write one. `factor`: between levels, 2 or 4; `share`: of the tiles that are tissue; `source`: a slide to cut the tissue from."""
    stored = KINDS[kind]
    drawing = _Drawing(edge=edge, kind=stored, factor=factor, share=share, tissue=picture(source))
    description = aperio_description(edge, mpp=mpp, rgb_components=stored.rgb_components, quality=_QUALITY)
    return write_tiff(path, drawing.directories(description), big=stored.bigtiff)


def write_by_libvips(
    path: Path, *, edge: int = EDGE, kind: str = "rgb", mpp: float = 0.25, share: float = _SHARES["vips"], source: Path | None = None
) -> Path:
    """Write one of the same islands, levels by 2, by libvips; arguments as of `write_large_slide`."""
    # Only what writes by it loads it.
    from benchmarks.support.slides.composition import composed
    from tests.support.slides.vips import QUALITIES, save_pyramid

    stored = KINDS[kind]
    description = aperio_description(edge, mpp=mpp, rgb_components=stored.rgb_components, quality=QUALITIES[stored.rgb_components])
    slide = composed(edge, share=share, tissue=picture(source))
    return save_pyramid(path, slide, description=description, tile=TILE, rgb_components=stored.rgb_components, bigtiff=stored.bigtiff)


class _Drawing:
    """The tiles of each level, drawn from the two pictures."""

    def __init__(self, *, edge: int, kind: Kind, factor: int, share: float, tissue: NDArray[np.uint8]) -> None:
        self._edge = edge
        self._kind = kind
        self._factor = factor
        across = -(-edge // TILE)
        self._tissue = islands(across, share)
        # By reduction: tissue and glass.
        self._pictures = {1: (tissue, painted(tissue=False))}

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
                key = (row * reduction % PERIOD, column * reduction % PERIOD, window.tobytes())
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
        return jpeg_tile(np.ascontiguousarray(pixels), rgb_components=self._kind.rgb_components, quality=_QUALITY)


def main() -> None:
    """Write one slide and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="rgb")
    parser.add_argument("--writer", choices=_SHARES, default="own")
    parser.add_argument("--edge", type=int, default=EDGE)
    parser.add_argument("--share", type=float, help="of the slide that is tissue; 0.15 by default, 0.05 by libvips")
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--factor", type=int, choices=(2, 4), default=2)
    parser.add_argument("--source", type=existing_file, help="slide to cut the tissue from; painted by default")
    given = parser.parse_args()
    share = _SHARES[given.writer] if given.share is None else given.share
    wanted = {"edge": given.edge, "kind": given.kind, "mpp": given.mpp, "share": share, "source": given.source}
    if given.writer == "own":
        write_large_slide(given.path, factor=given.factor, **wanted)
    elif given.factor != 2:
        parser.error("libvips writes levels by 2 alone: leave --factor out, or --writer")
    else:
        write_by_libvips(given.path, **wanted)
    print(f"{given.path}: {given.path.stat().st_size / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
