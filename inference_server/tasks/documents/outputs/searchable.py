"""Searchable PDFs: the original pages, with their text invisible above them."""

from __future__ import annotations

from inference_server.tasks.documents.outputs.image_pdf import ImagePdfWriter
from inference_server.tasks.documents.outputs.port import Original, Writer
from inference_server.tasks.documents.pdf.overlay import PdfOverlayWriter


def searchable_writer(original: Original) -> Writer:
    """A PDF stays as it is, with a layer added; images become pages that hold them as they are."""
    if original.media_type == "application/pdf":
        return PdfOverlayWriter(original)
    return ImagePdfWriter(original)
