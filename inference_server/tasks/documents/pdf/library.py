"""What all users of pdfium share: its lock, how files are opened, and where a page's pixels are."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pypdfium2
from numpy.typing import NDArray
from pypdfium2 import raw

from inference_server.errors import InvalidDocument

# pdfium keeps state for the whole process and may be entered by one thread only.
PDFIUM = threading.RLock()

POINTS_PER_INCH = 72

# From a page's points to its pixels: [[a, b, c], [d, e, f]], of x, y and 1.
Affine = NDArray[np.float64]

# pdfium calls it broken.
_NO_PDF = b"no PDF"

# pdfium tells whole pixels; of a page so many times larger they are exact enough.
_FINER = 256


def open_pdf(content: bytes, password: str) -> pypdfium2.PdfDocument:
    """Open a file; the caller holds the lock. Raises `InvalidDocument` when it is encrypted or broken."""
    # A file without pages sets no error: without this, what is told of it is what was wrong with a file before.
    raw.FPDF_LoadMemDocument64(_NO_PDF, len(_NO_PDF), None)
    try:
        return pypdfium2.PdfDocument(content, password=password or None)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            if password:
                raise InvalidDocument("the PDF is encrypted and the password given does not open it. Give its user password.") from error
            raise InvalidDocument("the PDF is encrypted. Give its password in the field `password`, or send it decrypted.") from error
        if error.err_code == raw.FPDF_ERR_SECURITY:
            raise InvalidDocument("the PDF is encrypted in a way that is not supported. Send it decrypted.") from error
        raise InvalidDocument("the PDF is broken: no pages can be found in it. Was it cut off? Export or download it again.") from error


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
