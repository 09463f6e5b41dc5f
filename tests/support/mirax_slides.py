"""MIRAX slides made for tests: a file that names the slide, and a folder with all that it holds."""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np
import simplejpeg

from tests.support.slides import Pixels

_ID = "LAMINA0000000000"
_SLIDEDAT = """[GENERAL]
SLIDE_VERSION = 01.02
SLIDE_ID = {id}
IMAGENUMBER_X = {across}
IMAGENUMBER_Y = {down}
OBJECTIVE_MAGNIFICATION = 20
[HIERARCHICAL]
INDEXFILE = Index.dat
HIER_COUNT = 1
NONHIER_COUNT = 0
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 1
HIER_0_VAL_0_SECTION = LEVEL_0
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
[LEVEL_0]
IMAGE_CONCAT_FACTOR = 0
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = {mpp}
MICROMETER_PER_PIXEL_Y = {mpp}
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {width}
DIGITIZER_HEIGHT = {height}
IMAGE_FORMAT = JPEG
"""


def write_mrxs(
    path: Path, pixels: Pixels, *, images: int = 4, first: int = 1, mpp: float = 0.5, spoil: Collection[tuple[int, int]] = ()
) -> Path:
    """One level of images × images pictures, whose first rows and columns were not scanned.

    `spoil`: (column, row) of pictures that cannot be decoded.
    """
    height, width = pixels.shape[0] // images, pixels.shape[1] // images
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[::8, ::8])))
    told = _SLIDEDAT.format(id=_ID, across=images, down=images, width=width, height=height, mpp=mpp)
    (folder / "Slidedat.ini").write_text(told)
    data, entries = bytearray(), b""
    for row in range(first, images):
        for column in range(first, images):
            part = np.ascontiguousarray(pixels[row * height : (row + 1) * height, column * width : (column + 1) * width])
            encoded = simplejpeg.encode_jpeg(part, quality=90, colorsubsampling="444")
            if (column, row) in spoil:
                encoded = b"\x00" * len(encoded)
            # Number of the picture, place, length and number of the file.
            entries += struct.pack("<4i", row * images + column, len(data), len(encoded), 0)
            data += encoded
    (folder / "Data0000.dat").write_bytes(data)
    head = b"01.02" + _ID.encode()
    # Two roots; the list of levels; a level's list of pages; its one page, and no next one.
    level, page = len(head) + 12, len(head) + 20
    pages = struct.pack("<2i", len(entries) // 16, 0) + entries
    (folder / "Index.dat").write_bytes(head + struct.pack("<5i", len(head) + 8, 0, level, 0, page) + pages)
    return path
