"""Pyramids as OME-TIFF: values of a heatmap, and classes of pixels. Alone in importing tifffile.

A pyramid is tiled, its lower levels are SubIFDs, and OME-XML tells sizes in micrometres, as QuPath and Bio-Formats read it. Nothing in
it changes from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.findings import Heat, LabelMap
from inference_server.tasks.slides.tissue.cells import stripes

MASK_FILE = "mask.ome.tiff"
MEDIA_TYPE = "image/tiff"
_EDGE = 512
# Of which the sides of TIFF's tiles are multiples.
_STEP = 16
# Levels are added until one fits into a tile.
_MOST_LEVELS = 16
# A level of a mask with at most so many pixels is kept while those below it are made from it.
_MOST_HELD_PIXELS = 2**26
# Of float32 a third smaller than at 1.
_LEVEL = 3
# Raw pixels from which on offsets need 64 bits.
_BIG_BYTES = 2**31
# Of a pixel, that bounds may lie before its edge and count as on it.
_ROUNDING = 1e-6
_TYPES = {"float32": "float", "uint8": "uint8"}

# Level, row and column of a tile to its pixels, at most 512 × 512; None where there is nothing.
_TileOf = Callable[[int, int, int], NDArray[np.generic] | None]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How pictures lie on the slide."""

    # Micrometres per level-0 pixel along x and y.
    mpp: tuple[float, float]
    # Where QuPath's coordinates begin, in level-0 pixels.
    bounds: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Pyramid:
    """A picture by its tiles."""

    name: str
    description: str
    # Pixels of each level, rows and columns.
    shapes: Sequence[tuple[int, int]]
    dtype: np.dtype[np.generic]
    # Of a pixel where there is nothing.
    empty: float
    tile: _TileOf
    # Micrometres per pixel, and of the first pixel's corner from where QuPath's coordinates begin.
    pixel: tuple[float, float]
    origin: tuple[float, float]


def load() -> None:
    """Import what writing needs, which takes a while."""
    import tifffile  # noqa: F401


def write_heat(path: Path, heat: Heat, placement: Placement) -> None:
    """The values of a heatmap as float32, NaN where there is none; blocks. A lower level has the means of four pixels."""
    first, origin, pixel = _aligned(heat.scale, placement)
    levels: list[_Rows | NDArray[np.float32]] = [_Rows(heat, first)]
    while max(levels[-1].shape) > _EDGE and len(levels) < _MOST_LEVELS:
        levels.append(_halved(levels[-1]))

    # Tiles are asked for row by row.
    @lru_cache(maxsize=1)
    def rows(level: int, row: int) -> NDArray[np.float32]:
        return levels[level][row * _EDGE : (row + 1) * _EDGE]

    def tile(level: int, row: int, column: int) -> NDArray[np.generic]:
        return rows(level, row)[:, column * _EDGE : (column + 1) * _EDGE]

    _write(
        path,
        _Pyramid(
            name="heatmap",
            description=f"Values from 0 to {heat.top:g} take all colours of heatmap.png; NaN: not analysed.",
            shapes=[(each.shape[0], each.shape[1]) for each in levels],
            dtype=np.dtype(np.float32),
            empty=np.nan,
            tile=tile,
            pixel=pixel,
            origin=origin,
        ),
    )


def write_labels(path: Path, labels: LabelMap, placement: Placement) -> None:
    """The classes of pixels as uint8, 0 where there is none; blocks. A lower level has every second pixel, for classes have no mean."""
    first, origin, pixel = _aligned(labels.scale, placement)
    shapes = [(labels.height - first[1], labels.width - first[0])]
    while max(shapes[-1]) > _EDGE and len(shapes) < _MOST_LEVELS:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    _write(
        path,
        _Pyramid(
            name="mask",
            description="0: none; " + "; ".join(f"{number}: {name}" for number, name in enumerate(labels.classes, start=1)),
            shapes=shapes,
            dtype=np.dtype(np.uint8),
            empty=0,
            tile=_LabelTiles(labels, shapes, first).tile,
            pixel=pixel,
            origin=origin,
        ),
    )


class _Rows:
    """The values of a heatmap from the first pixel that is shown, some rows at a time."""

    def __init__(self, heat: Heat, first: tuple[int, int]) -> None:
        self._values = heat.values
        self._left, self._top = first

    @property
    def shape(self) -> tuple[int, int]:
        return self._values.shape[0] - self._top, self._values.shape[1] - self._left

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return self._values[rows.start + self._top : rows.stop + self._top][:, self._left :].astype(np.float32, copy=False)


class _LabelTiles:
    """Cuts the tiles of a pyramid from a mask's blocks."""

    def __init__(self, labels: LabelMap, shapes: Sequence[tuple[int, int]], first: tuple[int, int]) -> None:
        self._labels = labels
        self._shapes = shapes
        self._first = first
        # The finest level that is small enough to be held, once it is made.
        self._held_level = next(level for level, shape in enumerate(shapes) if shape[0] * shape[1] <= _MOST_HELD_PIXELS)
        self._held: NDArray[np.uint8] | None = None

    def tile(self, level: int, row: int, column: int) -> NDArray[np.uint8] | None:
        if level >= self._held_level:
            if self._held is None:
                self._held = self._pixels(self._held_level, 0, 0, *self._shapes[self._held_level])
            step = 2 ** (level - self._held_level)
            top, left = row * _EDGE * step, column * _EDGE * step
            found = self._held[top : top + _EDGE * step : step, left : left + _EDGE * step : step]
        else:
            shape = self._shapes[level]
            top, left = row * _EDGE, column * _EDGE
            found = self._pixels(level, top, left, min(_EDGE, shape[0] - top), min(_EDGE, shape[1] - left))
        return found if found.any() else None

    def _pixels(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """A window of a level, from the mask's own pixels: every second, fourth and so on."""
        step, edge = 2**level, self._labels.edge
        rows = self._first[1] + (top + np.arange(height)) * step
        columns = self._first[0] + (left + np.arange(width)) * step
        window = np.zeros((height, width), np.uint8)
        for block_row in np.unique(rows // edge).tolist():
            into_rows = np.flatnonzero(rows // edge == block_row)
            for block_column in np.unique(columns // edge).tolist():
                block = self._labels.block(block_row, block_column)
                if block is not None:
                    into = np.flatnonzero(columns // edge == block_column)
                    picked = block[np.ix_(rows[into_rows] - block_row * edge, columns[into] - block_column * edge)]
                    window[into_rows[0] : into_rows[-1] + 1, into[0] : into[-1] + 1] = picked
        return window


def _aligned(scale: tuple[float, float], placement: Placement) -> tuple[tuple[int, int], tuple[float, float], tuple[float, float]]:
    """The first pixel shown, x and y; where its corner lies from where QuPath begins, in µm, and a pixel in µm.

    It is the one that QuPath's coordinates begin in: none that lies within the slide's bounds by any part is cut off.
    """
    first = tuple(int(placement.bounds[axis] / scale[axis] + _ROUNDING) for axis in range(2))
    left = [(first[axis] * scale[axis] - placement.bounds[axis]) * placement.mpp[axis] for axis in range(2)]
    pixel = scale[0] * placement.mpp[0], scale[1] * placement.mpp[1]
    return (first[0], first[1]), (left[0], left[1]), pixel


def _halved(values: _Rows | NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of what there is in each two by two."""
    means = np.full((-(-values.shape[0] // 2), -(-values.shape[1] // 2)), np.nan, np.float32)
    for rows in stripes(values.shape[0]):
        stripe = values[rows]
        if np.isfinite(stripe).any():
            padded = np.pad(stripe, ((0, len(stripe) % 2), (0, stripe.shape[1] % 2)), constant_values=np.nan)
            seen = np.isfinite(padded)
            counts, sums = _fours(seen.view(np.uint8)), _fours(np.where(seen, padded, 0).astype(np.float64))
            # As many rows as a stripe has are even but for the last.
            into = means[rows.start // 2 : -(-rows.stop // 2)]
            np.divide(sums, counts, out=into, where=counts > 0, casting="same_kind")
    return means


def _fours(values: NDArray[Any]) -> NDArray[Any]:
    """Sums of each two by two."""
    lines = values[0::2] + values[1::2]
    return np.asarray(lines[:, 0::2] + lines[:, 1::2])


def _write(path: Path, pyramid: _Pyramid) -> None:
    # Only a server that writes a pyramid needs it, and it takes long to import.
    from tifffile import TiffWriter

    big = sum(rows * columns for rows, columns in pyramid.shapes) * pyramid.dtype.itemsize > _BIG_BYTES
    density = [resolution.CENTIMETRE / side for side in pyramid.pixel]
    with TiffWriter(path, bigtiff=big, byteorder="<") as file:
        for level, shape in enumerate(pyramid.shapes):
            file.write(
                _tiles(pyramid, level),
                shape=shape,
                dtype=pyramid.dtype,
                tile=_tile_shape(pyramid),
                compression="zlib",
                photometric="minisblack",
                metadata=None,
                # Readers that take no notice of OME's sizes take these: tiffslide, slideio, large_image's tiff source.
                resolution=(density[0] / 2**level, density[1] / 2**level),
                resolutionunit="CENTIMETER",
                software="Lamina",
                subfiletype=1 if level else 0,
                subifds=len(pyramid.shapes) - 1 if level == 0 else 0,
                description=_xml(pyramid) if level == 0 else None,
            )


def _tiles(pyramid: _Pyramid, level: int) -> Iterator[bytes]:
    """All tiles of a level as they are stored, one at a time; those past its right and lower edge filled up."""
    rows, columns = pyramid.shapes[level]
    stored = _tile_shape(pyramid)
    blank = isal_zlib.compress(np.full(stored, pyramid.empty, pyramid.dtype).tobytes(), _LEVEL)
    for row in range(-(-rows // _EDGE)):
        for column in range(-(-columns // _EDGE)):
            pixels = pyramid.tile(level, row, column)
            if pixels is None or (np.isnan(pyramid.empty) and np.isnan(pixels).all()):
                yield blank
            else:
                full = np.full(stored, pyramid.empty, pyramid.dtype)
                full[: pixels.shape[0], : pixels.shape[1]] = pixels
                yield isal_zlib.compress(full.tobytes(), _LEVEL)


def _tile_shape(pyramid: _Pyramid) -> tuple[int, int]:
    """Of all levels, no larger than the first one needs: libvips refuses tiles that are far larger than their image."""
    rows, columns = (min(-(-side // _STEP) * _STEP, _EDGE) for side in pyramid.shapes[0])
    return rows, columns


def _xml(pyramid: _Pyramid) -> bytes:
    """OME-XML 2016-06 of one plane of one channel, in UTF-8: of references such as `&#181;` Bio-Formats reads none, nor then the rest."""
    rows, columns = pyramid.shapes[0]
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 '
        'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" Creator="Lamina">'
        f'<Image ID="Image:0" Name={quoteattr(pyramid.name)}><Description>{escape(_printable(pyramid.description))}</Description>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{_TYPES[pyramid.dtype.name]}" BigEndian="false" SizeX="{columns}" '
        f'SizeY="{rows}" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{pyramid.pixel[0]:.9g}" PhysicalSizeY="{pyramid.pixel[1]:.9g}">'
        f'<Channel ID="Channel:0:0" Name={quoteattr(pyramid.name)} SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/>'
        f'<Plane TheC="0" TheZ="0" TheT="0" PositionX="{pyramid.origin[0]:.9g}" PositionXUnit="µm" '
        f'PositionY="{pyramid.origin[1]:.9g}" PositionYUnit="µm"/></Pixels></Image></OME>'
    )
    return text.encode()


def _printable(text: str) -> str:
    """Without what XML takes in no way, such as the control characters that a class' name may have: readers find no OME-XML then."""
    return "".join(each if each.isprintable() else " " for each in text)
