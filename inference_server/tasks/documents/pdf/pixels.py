"""Where a page's pixels are."""

from __future__ import annotations

import ctypes

import numpy as np
import pypdfium2
from numpy.typing import NDArray
from pypdfium2 import raw

# From a page's points to its pixels: [[a, b, c], [d, e, f]], of x, y and 1.
Affine = NDArray[np.float64]

# pdfium tells whole pixels; of a page so many times larger they are exact enough.
_FINER = 256


def points_to_pixels(page: pypdfium2.PdfPage, width: float, height: float) -> Affine:
    """How points of a page become pixels of its picture of `width` × `height`, turned and cropped as it is shown."""
    size = (round(width * _FINER), round(height * _FINER))
    origin, along_x, along_y = (_device(page, size, x, y) for x, y in ((0, 0), (1000, 0), (0, 1000)))
    columns = [(along_x - origin) / 1000, (along_y - origin) / 1000, origin]
    return np.stack(columns, axis=1) / _FINER


def _device(page: pypdfium2.PdfPage, size: tuple[int, int], x: float, y: float) -> NDArray[np.float64]:
    column, row = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page.raw, 0, 0, *size, 0, x, y, ctypes.byref(column), ctypes.byref(row))
    return np.array([column.value, row.value], np.float64)
