"""Pages of PDF files, rendered by pdfium. Alone in importing pypdfium2."""

from __future__ import annotations

import math
import threading
from contextlib import suppress

import numpy as np
import pypdfium2
from pypdfium2 import raw

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.values import Limits, Page

# pdfium keeps state for the whole process and may be entered by one thread only.
_PDFIUM = threading.RLock()

_POINTS_PER_INCH = 72


class PdfPages:
    """A PDF whose pages are rendered one at a time."""

    media_type = "application/pdf"

    def __init__(self, content: bytes, *, dpi: int, password: str, limits: Limits) -> None:
        """`dpi`: dots per inch of the rendering. Raises `InvalidDocument` when the file is broken or encrypted."""
        self._dpi = dpi
        self._limits = limits
        self._closed = False
        with _PDFIUM:
            self._document = _open(content, password)
            # Values that were typed into a form are drawn by the form environment only.
            with suppress(pypdfium2.PdfiumError):
                self._document.init_forms()
            self.page_count = len(self._document)

    def page(self, index: int) -> Page:
        """Render the page at `index`, from 0."""
        with _PDFIUM:
            if self._closed:
                # A caller that went away leaves threads behind that waited for their turn.
                raise InvalidDocument("the document was closed while it was read.")
            try:
                page = self._document[index]
            except pypdfium2.PdfiumError as error:
                raise InvalidDocument(f"page {index + 1} is broken: its description cannot be read.") from error
            try:
                self._check_size(index + 1, page.get_width(), page.get_height())
                bitmap = page.render(scale=self._dpi / _POINTS_PER_INCH, rev_byteorder=True)
                try:
                    # A copy: the bitmap's memory is pdfium's.
                    return np.array(bitmap.to_numpy()[:, :, :3], copy=True)
                finally:
                    bitmap.close()
            except (pypdfium2.PdfiumError, ValueError) as error:
                raise InvalidDocument(f"page {index + 1} cannot be rendered; the file is damaged there.") from error
            finally:
                page.close()

    def close(self) -> None:
        """Free the document."""
        with _PDFIUM:
            self._closed = True
            self._document.close()

    def _check_size(self, number: int, width_points: float, height_points: float) -> None:
        if not (width_points > 0 and height_points > 0 and math.isfinite(width_points * height_points)):
            raise InvalidDocument(f"page {number} has no area ({width_points} × {height_points} points).")
        scale = self._dpi / _POINTS_PER_INCH
        width, height = math.ceil(width_points * scale), math.ceil(height_points * scale)
        if width * height > self._limits.most_page_pixels:
            fitting = int(self._dpi * math.sqrt(self._limits.most_page_pixels / (width * height)))
            raise InvalidDocument(
                f"page {number} would have {width} × {height} pixels at {self._dpi} dpi; at most {self._limits.most_page_pixels} "
                f"pixels are accepted. Ask for a dpi of at most {fitting}.",
                limit="page_pixels",
            )


def _open(content: bytes, password: str) -> pypdfium2.PdfDocument:
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
