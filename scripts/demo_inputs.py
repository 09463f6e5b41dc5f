"""What the demo feeds to the main job: a slide, a rendered lab report and a lab list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageDraw, ImageFont

# Name, value, unit, reference range.
_Row = tuple[str, str, str, str]

_PAGES: tuple[tuple[str, tuple[tuple[str, tuple[_Row, ...]], ...]], ...] = (
    (
        "LABORATORY REPORT",
        (
            (
                "HEMATOLOGY",
                (
                    ("Hemoglobin", "13.5", "g/dL", "12.0 - 16.0"),
                    ("Hematocrit", "40.2", "%", "36.0 - 46.0"),
                    ("White blood cell count", "7.8", "10^3/uL", "4.0 - 10.0"),
                    ("Platelet count", "245", "10^3/uL", "150 - 400"),
                ),
            ),
            (
                "CLINICAL CHEMISTRY",
                (
                    ("Fasting glucose", "98", "mg/dL", "70 - 99"),
                    ("HbA1c", "5.6", "%", "< 5.7"),
                    ("LDL cholesterol", "128", "mg/dL", "< 130"),
                    ("Creatinine", "0.9", "mg/dL", "0.6 - 1.1"),
                    ("TSH", "2.1", "mIU/L", "0.4 - 4.0"),
                ),
            ),
        ),
    ),
    (
        "HASIL PEMERIKSAAN LABORATORIUM",
        (
            (
                "KIMIA KLINIK",
                (
                    ("Gula darah puasa", "105", "mg/dL", "70 - 100"),
                    ("Asam urat", "6.8", "mg/dL", "2.4 - 6.0"),
                    ("Kolesterol total", "215", "mg/dL", "< 200"),
                    ("Trigliserida", "160", "mg/dL", "< 150"),
                    ("Ureum", "28", "mg/dL", "15 - 40"),
                ),
            ),
            (
                "URINALISIS",
                (
                    ("Protein urin", "Negatif", "", "Negatif"),
                    ("Berat jenis", "1.020", "", "1.005 - 1.030"),
                    ("Leukosit urin", "2 - 4", "/LPB", "0 - 5"),
                ),
            ),
        ),
    ),
)

# A4 at 150 dots per inch.
_PAGE_SIZE = (1240, 1754)
_DOTS_PER_INCH = 150.0
_COLUMNS = (100, 560, 720, 920)


def write_lab_report(path: Path) -> Path:
    """A scanned-looking PDF of two pages, one in English and one in Indonesian; it has no text layer."""
    pages = [_report_page(title, sections, number) for number, (title, sections) in enumerate(_PAGES, start=1)]
    pages[0].save(path, save_all=True, append_images=pages[1:], resolution=_DOTS_PER_INCH)
    return path


def _report_page(title: str, sections: tuple[tuple[str, tuple[_Row, ...]], ...], number: int) -> Image.Image:
    page = Image.new("RGB", _PAGE_SIZE, "white")
    draw = ImageDraw.Draw(page)
    large, bold, plain = (ImageFont.load_default(size) for size in (40, 30, 26))
    draw.text((100, 90), title, fill="black", font=large)
    draw.text((100, 160), "Laboratorium Contoh, Jl. Melati 12, Bandung", fill="black", font=plain)
    draw.line((100, 210, 1140, 210), fill="black", width=3)
    top = 250
    for name, rows in sections:
        draw.text((100, top), name, fill="black", font=bold)
        top += 60
        for row in rows:
            for left, text in zip(_COLUMNS, row, strict=True):
                draw.text((left, top), text, fill="black", font=plain)
            top += 50
        top += 30
    draw.text((100, 1640), f"Page {number} of {len(_PAGES)}", fill="black", font=plain)
    return page


def write_lab_list(path: Path) -> Path:
    """The tests of the report as a list, and a line of the bill that is no test."""
    rows = [row for _, sections in _PAGES for _, tests in sections for row in tests]
    tests = [{"name": name, "value": value, "unit": unit, "reference_range": normal} for name, value, unit, normal in rows]
    path.write_text(json.dumps([*tests, {"name": "Biaya administrasi", "value": "15000", "unit": "Rp"}], ensure_ascii=False, indent=1))
    return path


def write_slide(path: Path, *, size: int = 2048, mpp: float = 0.5, tile: int = 256) -> Path:
    """A tiled TIFF that tells its resolution: an island of pink tissue with blue nuclei on white glass."""
    draw = np.random.default_rng(7)
    rows, columns = np.mgrid[:size, :size]
    middle = size / 2
    tissue = ((rows - middle) / (0.42 * size)) ** 2 + ((columns - middle) / (0.36 * size)) ** 2 < 1 + 0.1 * np.sin(rows / 90)
    pixels = np.full((size, size, 3), 244, np.int16)
    pixels[tissue] = (226, 152, 190)
    pixels += draw.normal(0, 4, pixels.shape).astype(np.int16)
    for row, column in draw.integers(0, size, (size * size // 2500, 2)):
        if tissue[row, column]:
            _stain_nucleus(pixels, row, column, radius=int(draw.integers(4, 8)))
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    per_centimetre = 10_000 / mpp
    tifffile.imwrite(
        path,
        image,
        tile=(tile, tile),
        photometric="rgb",
        compression="zlib",
        resolution=(per_centimetre, per_centimetre),
        resolutionunit="CENTIMETER",
    )
    return path


def _stain_nucleus(pixels: np.ndarray, row: int, column: int, *, radius: int) -> None:
    top, left = max(row - radius, 0), max(column - radius, 0)
    patch = pixels[top : row + radius + 1, left : column + radius + 1]
    rows, columns = np.mgrid[top : top + patch.shape[0], left : left + patch.shape[1]]
    patch[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = (84, 58, 132)
