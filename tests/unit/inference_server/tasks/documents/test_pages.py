"""Documents as pages: formats, limits and damage."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps
from pypdf import PdfReader, PdfWriter

from inference_server.errors import InvalidDocument, InvalidInput
from inference_server.tasks.documents.pages import selected_pages
from inference_server.tasks.documents.values import Limits
from tests.support.documents.opened_pages import opened
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import image_file

LIMITS = Limits()


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.dstack([np.tile(ramp, (height, 1))] * 3))


def encrypted(content: bytes, password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(content)))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def one_page_pdf() -> bytes:
    return pdf([[Text(text="Hello", x=20, y=40)]], size=(144, 72))


def test_pdf_pages_are_rendered_at_the_resolution_asked_for() -> None:
    pages = opened(one_page_pdf(), limits=LIMITS, dpi=150)
    page = pages.page(0)
    assert ("application/pdf", 1) == (pages.media_type, pages.page_count)
    assert ((150, 300, 3), np.uint8) == (page.shape, page.dtype)
    assert (255, True) == (page.max(), bool((page < 100).any()))


def test_pdf_pages_are_rendered_at_200_dpi_by_default() -> None:
    assert (200, 400, 3) == opened(one_page_pdf(), limits=LIMITS).page(0).shape


def test_a_pdf_is_found_behind_leading_bytes() -> None:
    assert "application/pdf" == opened(b"\n\n" + one_page_pdf(), limits=LIMITS).media_type


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("TIFF", "image/tiff")])
def test_the_format_is_told_by_the_content(kind: str, media_type: str) -> None:
    pages = opened(image_file(gradient(), kind), limits=LIMITS)
    assert (media_type, 1, (40, 60, 3)) == (pages.media_type, pages.page_count, pages.page(0).shape)


def test_every_frame_of_a_tiff_is_a_page() -> None:
    frames = [Image.new("L", (50, 20 + 10 * index), 50 * index) for index in range(3)]
    pages = opened(image_file(frames[0], "TIFF", save_all=True, append_images=frames[1:]), limits=LIMITS)
    assert 3 == pages.page_count
    assert [(40, 50, 100), (20, 50, 0)] == [(*pages.page(index).shape[:2], int(pages.page(index).max())) for index in (2, 0)]


@pytest.mark.parametrize(("orientation", "dark_corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_a_photograph_is_turned_as_its_exif_says(orientation: int, dark_corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (64, 32), "white")
    image.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    page = opened(image_file(image, "JPEG", exif=exif, quality=95), limits=LIMITS).page(0)
    assert (32, 64) if orientation < 5 else (64, 32) == page.shape[:2]
    assert page[dark_corner].max() < 40
    assert 1 == sum(page[corner].max() < 40 for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)))


def test_transparent_paper_is_white() -> None:
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert 255 == opened(image_file(image, "PNG"), limits=LIMITS).page(0).min()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    page = opened(image_file(gradient().convert(mode), "TIFF"), limits=LIMITS).page(0)
    assert ((40, 60, 3), np.uint8) == (page.shape, page.dtype)
    assert (True, True) == (page[:, :5].mean() < 60, page[:, -5:].mean() > 195)


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = Image.fromarray(np.tile(np.linspace(0, 65535, 60).astype(np.uint16), (40, 1)))
    page = opened(image_file(deep, "PNG"), limits=LIMITS).page(0)
    assert (0, 255, 127) == (int(page[0, 0, 0]), int(page[0, -1, 0]), int(page[0, 29:31].mean()))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"Patient: Siti\nHemoglobin 13.5 g/dL\n", "is text; expected a PDF, PNG, JPEG, TIFF, WebP or HEIC"),
        (b"PK\x03\x04\x14\x00\x06\x00", "Office document"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "WebP file is broken"),
        (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", "an AVIF image"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x14ftypjp2 ", "a JPEG 2000 image"),
        (b"PK\x03\x04\x14\x00report.pdf%PDF-1.7\n", "a ZIP archive or an Office document"),
        (b"\x00\x00\x00\x20ftypheic\x00\x00\x00\x00", "HEIC file is broken"),
        (bytes(range(256)), "of no known format"),
        (b"%PDF-1.7\ngarbage", "PDF is broken"),
        (b"\x89PNG\r\n\x1a\n", "PNG file is broken"),
        (b"II*\x00\x08\x00", "TIFF file is broken"),
        (b"\xff\xd8\xff\xe0\x00", "JPEG file is broken"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        opened(content, limits=LIMITS)


def test_an_encrypted_pdf_says_so_and_how_to_mend_it() -> None:
    with pytest.raises(InvalidDocument, match=r"is encrypted\. Give its password in the field `password`"):
        opened(encrypted(one_page_pdf(), "secret"), limits=LIMITS)


def test_a_wrong_password_is_told_apart() -> None:
    with pytest.raises(InvalidDocument, match="password given does not open it"):
        opened(encrypted(one_page_pdf(), "secret"), limits=LIMITS, password="guess")


def test_a_pdf_without_pages_is_not_told_the_fault_of_the_file_before_it() -> None:
    out = io.BytesIO()
    PdfWriter().write(out)
    with pytest.raises(InvalidDocument, match="is encrypted"):
        opened(encrypted(one_page_pdf(), "secret"), limits=LIMITS)
    with pytest.raises(InvalidDocument, match="no pages can be found"):
        opened(out.getvalue(), limits=LIMITS)


def test_the_right_password_opens_an_encrypted_pdf() -> None:
    assert 1 == opened(encrypted(one_page_pdf(), "secret"), limits=LIMITS, password="secret").page_count


def test_a_huge_image_is_refused_from_its_header() -> None:
    pages = opened(huge_png(60_000, 60_000), limits=LIMITS)
    with pytest.raises(InvalidDocument, match="60000 × 60000 pixels; at most 100000000"):
        pages.page(0)


def test_a_huge_pdf_page_is_refused_with_a_resolution_that_fits() -> None:
    pages = opened(pdf([[]], size=(7200, 7200)), limits=LIMITS, dpi=216)
    with pytest.raises(InvalidDocument, match=r"21600 × 21600 pixels at 216 dpi.*dpi of at most (99|100)\."):
        pages.page(0)


def test_a_pdf_page_that_is_too_large_at_every_resolution_is_not_told_to_be_asked_for_at_one() -> None:
    pages = opened(pdf([[]], size=(100_000, 100_000)), limits=LIMITS)
    with pytest.raises(InvalidDocument, match=r"at 200 dpi; at most \d+ pixels are accepted\. Print it on smaller paper\."):
        pages.page(0)


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidDocument, match="at most 100 are accepted"):
        opened(one_page_pdf(), limits=Limits(most_bytes=100))


@pytest.mark.parametrize("dpi", [-1, 10, 601])
def test_a_resolution_out_of_range_is_refused(dpi: int) -> None:
    with pytest.raises(InvalidInput, match="expected 36 to 600"):
        opened(one_page_pdf(), limits=LIMITS, dpi=dpi)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_an_image_that_was_cut_off_is_told_so(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    content = image_file(noise, kind)
    with pytest.raises(InvalidDocument, match=r"damaged or cut off|header cannot be read"):
        opened(content[: len(content) // 2], limits=LIMITS).page(0)


def test_pages_are_selected_in_order_and_once() -> None:
    assert (1, 3) == selected_pages((3, 1, 3), 5, LIMITS)
    assert (1, 2, 3) == selected_pages((), 3, LIMITS)


@pytest.mark.parametrize("number", [0, -1, 6])
def test_a_page_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(InvalidDocument, match=f"page {number} was asked for; the document has pages 1 to 5"):
        selected_pages((2, number), 5, LIMITS)


def test_too_many_pages_are_refused_and_a_selection_of_them_is_not() -> None:
    limits = Limits(most_pages=2)
    assert (7, 9) == selected_pages((7, 9), 10, limits)
    with pytest.raises(InvalidDocument, match="10 pages are to be read; at most 2"):
        selected_pages((), 10, limits)


def test_a_webp_photograph_is_one_page() -> None:
    frames = image_file(gradient(), "WEBP", lossless=True, save_all=True, append_images=[gradient()])
    document = opened(frames, limits=LIMITS)
    assert ("image/webp", 1) == (document.media_type, document.page_count)
    assert (document.page(0) == np.asarray(gradient())).all()


def test_a_heic_photograph_is_read_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    pillow_heif.from_pillow(gradient(160, 120)).save(out, quality=-1, exif=exif.tobytes())
    document = opened(out.getvalue(), limits=LIMITS)
    page = document.page(0)
    assert ("image/heic", 1) == (document.media_type, document.page_count)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image_file(gradient(160, 120), "PNG", exif=exif)))))
    assert upright.shape == page.shape
    assert 5 > abs(page.astype(int) - upright.astype(int)).mean()


@pytest.mark.parametrize(("irot", "shape"), [(1, (120, 160, 3)), (6, (160, 120, 3))])
def test_a_heic_photograph_is_turned_by_its_own_property_and_not_by_exif(
    irot: int, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXIF describes a HEIC file, and turns none (ISO/IEC 23008-12); `irot`: of which orientation of EXIF the property is."""
    exif = Image.Exif()
    exif[0x0112] = 8
    out = io.BytesIO()
    monkeypatch.setattr("pillow_heif.heif._get_orientation_for_encoder", lambda info: irot)
    pillow_heif.from_pillow(gradient(160, 120)).save(out, quality=-1, exif=exif.tobytes())
    assert (irot != 1) == (b"irot" in out.getvalue())
    page = opened(out.getvalue(), limits=LIMITS).page(0)
    assert shape == page.shape
    # Of both pages the dark edge is at the top left.
    assert page[2, 2, 0] < 10


def test_a_huge_webp_or_heic_image_is_refused_from_its_header() -> None:
    out = io.BytesIO()
    pillow_heif.from_pillow(gradient(640, 480)).save(out)
    for content in (out.getvalue(), image_file(gradient(640, 480), "WEBP")):
        with pytest.raises(InvalidDocument, match=r"page 1 has 640 × 480 pixels; at most 1000 pixels are accepted"):
            opened(content, limits=Limits(most_page_pixels=1000)).page(0)


def test_without_its_wheel_heic_is_refused_with_the_way_to_mend_it() -> None:
    """In a process of its own, in which the wheel cannot be imported."""
    program = """
import sys
sys.modules["pillow_heif"] = None
from inference_server.tasks.documents.images.files import ImagePages
from inference_server.tasks.documents.values import Limits
try:
    ImagePages(bytes(4) + b"ftypheic" + bytes(20), "image/heic", limits=Limits())
except Exception as error:
    print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "InvalidDocument the document is a HEIC image, which this server does not read: install it with the extra lamina[heic]" in told
