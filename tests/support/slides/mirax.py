"""MIRAX slides made for tests: a file that names the slide, and a folder with all that it holds."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from tests.support.slides.painted import Pixels

_ID = "LAMINA0000000000"
_VERSION = "01.02"
_SLIDEDAT = """[GENERAL]
SLIDE_VERSION = {version}
SLIDE_ID = {id}
IMAGENUMBER_X = {across}
IMAGENUMBER_Y = {across}
OBJECTIVE_MAGNIFICATION = 20
[HIERARCHICAL]
INDEXFILE = Index.dat
HIER_COUNT = 1
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = {levels}
{sections}
NONHIER_COUNT = 1
NONHIER_0_NAME = Scan data layer
NONHIER_0_COUNT = 2
NONHIER_0_VAL_0 = ScanDataLayer_SlideThumbnail
NONHIER_0_VAL_0_SECTION = MACRO
NONHIER_0_VAL_1 = ScanDataLayer_SlideBarcode
NONHIER_0_VAL_1_SECTION = LABEL
[MACRO]
THUMBNAIL_IMAGE_TYPE = JPEG
[LABEL]
BARCODE_IMAGE_TYPE = JPEG
[DATAFILE]
FILE_COUNT = 2
FILE_0 = Data0000.dat
FILE_1 = Data0001.dat
"""
_LEVEL = """[LEVEL_{level}]
IMAGE_CONCAT_FACTOR = {joined}
OVERLAP_X = {overlap}
OVERLAP_Y = {overlap}
MICROMETER_PER_PIXEL_X = {mpp}
MICROMETER_PER_PIXEL_Y = {mpp}
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {width}
DIGITIZER_HEIGHT = {height}
IMAGE_FORMAT = JPEG
"""


def write_mrxs(
    path: Path,
    pixels: Pixels,
    *,
    images: int = 4,
    first: int = 1,
    mpp: float = 0.5,
    levels: int = 1,
    overlap: int = 0,
    spoil: Collection[tuple[int, int]] = (),
) -> Path:
    """images × images pictures, whose first rows and columns were not scanned; with a macro image and a label.

    `levels`: each joins 2 × 2 pictures of the one before; `overlap`: pixels that neighbours share; `spoil`: (column, row) of pictures
    that cannot be decoded.
    """
    height, width = ((side - overlap) // images + overlap for side in pixels.shape[:2])
    photos = {
        (column, row): pixels[row * (height - overlap) :, column * (width - overlap) :][:height, :width]
        for row in range(first, images)
        for column in range(first, images)
    }
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    small = np.ascontiguousarray(pixels[::8, ::8])
    path.write_bytes(simplejpeg.encode_jpeg(small))
    shape = {"images": images, "width": width, "height": height, "levels": levels, "overlap": overlap}
    (folder / "Slidedat.ini").write_text(_slidedat(mpp=mpp, **shape))
    data, pages = bytearray(), []
    for level in range(levels):
        entries = []
        for (column, row), picture in _joined(photos, 2**level, images, (height, width)):
            encoded = simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="444")
            if level == 0 and (column, row) in spoil:
                encoded = b"\x00" * len(encoded)
            # Number of the picture, place, length and number of the file.
            entries.append((row * images + column, len(data), len(encoded), 0))
            data += encoded
        pages.append(entries)
    (folder / "Data0000.dat").write_bytes(data)
    macro = simplejpeg.encode_jpeg(small, colorsubsampling="444")
    (folder / "Data0001.dat").write_bytes(macro * 2)
    (folder / "Index.dat").write_bytes(_index(pages, [(0, len(macro), 1), (len(macro), len(macro), 1)]))
    return path


def _joined(
    photos: dict[tuple[int, int], Pixels], side: int, images: int, size: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], Pixels]]:
    """Pictures of side × side photos beside each other, as large as one, and the places of their first ones."""
    missing = np.full((*size, 3), 255, np.uint8)
    for row in range(0, images, side):
        for column in range(0, images, side):
            block = [[(column + x, row + y) for x in range(side)] for y in range(side)]
            if any(place in photos for line in block for place in line):
                lines = [np.concatenate([photos.get(place, missing) for place in line], axis=1) for line in block]
                yield (column, row), np.ascontiguousarray(np.concatenate(lines)[::side, ::side])


def _slidedat(*, images: int, width: int, height: int, levels: int, overlap: int, mpp: float) -> str:
    sections = "\n".join(f"HIER_0_VAL_{level}_SECTION = LEVEL_{level}" for level in range(levels))
    told = _SLIDEDAT.format(version=_VERSION, id=_ID, across=images, levels=levels, sections=sections)
    return told + "".join(
        _LEVEL.format(level=level, joined=int(level > 0), overlap=overlap / 2**level, mpp=mpp * 2**level, width=width, height=height)
        for level in range(levels)
    )


def _index(pages: Sequence[Sequence[tuple[int, int, int, int]]], records: Sequence[tuple[int, int, int]]) -> bytes:
    """Where pictures lie: one page for each level, and one for each of the other images."""
    head = _VERSION.encode() + _ID.encode()
    body = bytearray(8)  # the two roots

    def place() -> int:
        return len(head) + len(body)

    def put(*numbers: int) -> int:
        at = place()
        body.extend(struct.pack(f"<{len(numbers)}i", *numbers))
        return at

    # A page: how many it has, no next one, and what it has; before it a zero and its place.
    levels = [put(0, put(len(entries), 0, *(number for entry in entries for number in entry))) for entries in pages]
    others = [put(0, put(1, 0, 0, 0, *record)) for record in records]
    struct.pack_into("<2i", body, 0, put(*levels), put(*others))
    return head + bytes(body)
