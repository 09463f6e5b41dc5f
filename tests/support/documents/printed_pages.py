"""Pages with printed text, made by rendering small PDFs."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pypdfium2
from PIL import Image

from tests.support.documents.pdf import Text, pdf

# Points; a page of this size is read quickly.
SIZE = (300, 200)

LAB_REPORT = (
    (
        Text(text="LABORATORIUM SEHAT", x=60, y=30, size=14, font="Helvetica-Bold"),
        Text(text="Nama: Siti Rahayu", x=20, y=60),
        *(
            Text(text=cell, x=x, y=90 + 24 * row)
            for row, cells in enumerate((("Hemoglobin", "13.5", "g/dL"), ("Leukosit", "7.2", "10^3/uL"), ("Glukosa Puasa", "92", "mg/dL")))
            for x, cell in zip((20, 140, 220), cells, strict=True)
        ),
    ),
    (
        Text(text="Second page", x=20, y=40, size=14),
        Text(text="Kreatinin 0.9 mg/dL", x=20, y=80, font="Times-Roman"),
    ),
)
LAB_REPORT_TEXT = (
    "LABORATORIUM SEHAT\nNama: Siti Rahayu\nHemoglobin 13.5 g/dL\nLeukosit 7.2 10^3/uL\nGlukosa Puasa 92 mg/dL",
    "Second page\nKreatinin 0.9 mg/dL",
)


def lab_report_pdf() -> bytes:
    return pdf(LAB_REPORT, size=SIZE)


def images_of(content: bytes, dpi: int = 200) -> list[Image.Image]:
    """The pages of a PDF as pictures."""
    document = pypdfium2.PdfDocument(content)
    return [page.render(scale=dpi / 72).to_pil().convert("RGB") for page in document]


def image_file(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff_file(images: Sequence[Image.Image]) -> bytes:
    return image_file(images[0], "TIFF", save_all=True, append_images=list(images[1:]), compression="tiff_lzw")
