"""How files are opened."""

from __future__ import annotations

import pypdfium2
from pypdfium2 import raw

from inference_server.errors import InvalidDocument

POINTS_PER_INCH = 72

# pdfium calls it broken.
_NO_PDF = b"no PDF"


def open_pdf(content: bytes, password: str) -> pypdfium2.PdfDocument:
    """Open a file. Raises `InvalidDocument` when it is encrypted or broken."""
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
