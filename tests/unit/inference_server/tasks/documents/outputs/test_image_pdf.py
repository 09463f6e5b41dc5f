"""Images become searchable PDFs that hold them as they are."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pypdf
import pypdfium2
import pytest
from PIL import Image, ImageOps

from inference_server.tasks.documents.outputs.image_pdf import ImagePdfWriter
from inference_server.tasks.documents.outputs.port import Original
from tests.support.documents.printed_pages import image_file, tiff_file
from tests.support.documents.read_pages import line, page, written

SIZE = (400, 300)
LINES = (line(["Nama:", "Siti"]), line(["血圧", "Привет", "𝔘nd"], y=60), line(["askew", "words"], y=100, degrees=3))


def picture(mode: str = "RGB") -> Image.Image:
    """Unlike in every corner, with colours where the mode has them."""
    across, down = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    image = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))
    image.paste("black", (0, 0, 80, 40))
    return image.convert(mode)


def searchable(content: bytes, media_type: str, *pages: object) -> bytes:
    return written(ImagePdfWriter(Original(content=content, media_type=media_type)), pages or (page(*LINES),))  # type: ignore[arg-type]


def image_in(pdf: bytes, index: int = 0) -> tuple[Mapping[str, object], bytes]:
    """The image's dictionary and its bytes as they lie in the file."""
    found = pypdf.PdfReader(io.BytesIO(pdf)).pages[index]["/Resources"]["/XObject"]["/Im"].get_object()
    return found, found._data


def shown(pdf: bytes, size: tuple[int, int] = SIZE, index: int = 0) -> np.ndarray:
    sheet = pypdfium2.PdfDocument(pdf)[index]
    return np.asarray(sheet.render(scale=size[0] / sheet.get_width()).to_pil().convert("RGB").resize(size)).astype(int)


def test_text_of_any_script_is_found_by_pdfium_and_pypdf() -> None:
    pdf = searchable(image_file(picture(), "PNG"), "image/png")
    expected = "Nama: Siti\n血圧 Привет 𝔘nd\naskew words"
    assert expected == pypdfium2.PdfDocument(pdf)[0].get_textpage().get_text_range().replace("\r\n", "\n")
    reader = pypdf.PdfReader(io.BytesIO(pdf), strict=True)
    assert expected == reader.pages[0].extract_text()
    assert b"3 Tr" in reader.pages[0].get_contents().get_data()


@pytest.mark.parametrize("degrees", [0, 7, 90, 180, 270])
def test_words_are_found_where_they_are_seen(degrees: float) -> None:
    pdf = searchable(image_file(picture(), "PNG", dpi=(72, 72)), "image/png", page(line(["Glukosa", "92"], x=200, y=150, degrees=degrees)))
    textpage = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    search = textpage.search("Glukosa")
    found = search.get_next()
    assert found is not None
    boxes = np.array([textpage.get_charbox(found[0] + number) for number in range(found[1])])
    quad = line(["Glukosa", "92"], x=200, y=150, degrees=degrees).words[0].polygon
    assert quad.min(axis=0) == pytest.approx([boxes[:, 0].min(), 300 - boxes[:, 3].max()], abs=1)
    assert quad.max(axis=0) == pytest.approx([boxes[:, 2].max(), 300 - boxes[:, 1].min()], abs=1)


def test_words_whose_boxes_touch_stay_words_for_readers_that_look_at_gaps() -> None:
    """Boxes of words reach a little beyond their ink, so that those of words that stand close overlap."""
    near = line(["126", "mg/dL"])
    first, second = near.words
    touching = replace(
        near, words=(replace(first, polygon=first.polygon + np.array([(0, 0), (12, 0), (12, 0), (0, 0)], np.float32)), second)
    )
    pdf = searchable(image_file(picture(), "PNG", dpi=(72, 72)), "image/png", page(touching))
    textpage = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    assert textpage.get_charbox(4)[0] - textpage.get_charbox(2)[2] > 0.155 * 20
    assert "126 mg/dL" == textpage.get_text_range()


def test_the_font_reaches_as_far_down_as_its_characters() -> None:
    """Of a font without a descent readers mark a third more than the word."""
    reader = pypdf.PdfReader(io.BytesIO(searchable(image_file(picture(), "PNG"), "image/png")))
    descriptor = reader.pages[0]["/Resources"]["/Font"]["/F"]["/DescendantFonts"][0]["/FontDescriptor"]
    assert -10 < descriptor["/Descent"] < 0


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_kept_bit_for_bit(mode: str) -> None:
    content = image_file(picture(mode), "JPEG")
    pdf = searchable(content, "image/jpeg")
    entries, data = image_in(pdf)
    assert ("/DCTDecode", content) == (entries["/Filter"], data)
    # Inks are turned into colours in more ways than one; the wrong way round they would be 128 off.
    assert np.abs(shown(pdf) - np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)).mean() < (
        40 if mode == "CMYK" else 8
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_the_pixels_of_a_png_are_kept_bit_for_bit(mode: str) -> None:
    image = Image.fromarray((np.asarray(picture("L")).astype(np.uint16)) * 257) if mode == "I;16" else picture(mode)
    content = image_file(image, "PNG")
    pdf = searchable(content, "image/png")
    entries, data = image_in(pdf)
    assert "/FlateDecode" == entries["/Filter"]
    assert data in content
    assert np.abs(shown(pdf) - np.asarray(picture("L" if mode == "I;16" else mode).convert("RGB")).astype(int)).mean() < 8


@pytest.mark.parametrize(
    ("mode", "compression", "kept"),
    [
        ("1", "group4", "/CCITTFaxDecode"),
        ("RGB", "tiff_lzw", "/LZWDecode"),
        ("L", "tiff_adobe_deflate", "/FlateDecode"),
        ("RGB", "jpeg", "/DCTDecode"),
    ],
)
def test_the_strip_of_a_tiff_is_kept_bit_for_bit(mode: str, compression: str, kept: str) -> None:
    content = image_file(picture(mode), "TIFF", compression=compression, tiffinfo={278: SIZE[1]}, strip_size=2**24)
    pdf = searchable(content, "image/tiff")
    entries, data = image_in(pdf)
    if compression != "jpeg":
        assert kept == entries["/Filter"]
        assert data in content
    assert np.abs(shown(pdf) - np.asarray(picture(mode).convert("RGB")).astype(int)).mean() < 8


@pytest.mark.parametrize(
    ("kind", "media_type", "options"),
    [("WEBP", "image/webp", {"lossless": True}), ("TIFF", "image/tiff", {}), ("PNG", "image/png", {"transparency": (1, 2, 3)})],
)
def test_what_no_filter_reads_is_kept_pixel_for_pixel(kind: str, media_type: str, options: dict[str, object]) -> None:
    pdf = searchable(image_file(picture(), kind, **options), media_type)
    (found,) = pypdf.PdfReader(io.BytesIO(pdf)).pages[0].images
    assert (np.asarray(found.image.convert("RGB")) == np.asarray(picture())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_kept_and_shown_as_its_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = image_file(picture(), "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    pdf = searchable(content, "image/jpeg", page(size=upright.size))
    assert content == image_in(pdf)[1]
    assert np.abs(shown(pdf, upright.size) - np.asarray(upright).astype(int)).mean() < 5


@pytest.mark.parametrize(("mode", "compression"), [("1", "group4"), ("L", "tiff_lzw"), ("RGB", "tiff_adobe_deflate"), ("RGB", "jpeg")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_shown_as_its_orientation_says(orientation: int, mode: str, compression: str) -> None:
    content = image_file(picture(mode), "TIFF", compression=compression, tiffinfo={274: orientation, 278: SIZE[1]}, strip_size=2**24)
    upright = Image.open(io.BytesIO(content)).convert("RGB")
    assert (SIZE if orientation < 5 else SIZE[::-1]) == upright.size
    pdf = searchable(content, "image/tiff", page(size=upright.size))
    assert np.abs(shown(pdf, upright.size) - np.asarray(upright).astype(int)).mean() < 8


def test_a_page_has_the_size_that_the_image_tells() -> None:
    pdf = searchable(image_file(picture(), "PNG", dpi=(100, 100)), "image/png")
    assert (288, 216) == pytest.approx(pypdfium2.PdfDocument(pdf)[0].get_size(), abs=0.5)
    untold = searchable(image_file(picture(), "PNG"), "image/png")
    assert (144, 108) == pytest.approx(pypdfium2.PdfDocument(untold)[0].get_size(), abs=0.5)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_fax_on_its_side_keeps_its_size(compression: str) -> None:
    """Its pixels are not square: which resolution is across, its orientation tells."""
    content = image_file(picture("L"), "TIFF", compression=compression, tiffinfo={274: 6, 278: SIZE[1]}, dpi=(200, 100))
    pdf = searchable(content, "image/tiff", page(size=SIZE[::-1]))
    assert (216, 144) == pytest.approx(pypdfium2.PdfDocument(pdf)[0].get_size(), abs=0.5)


def test_every_frame_is_a_page_and_one_that_could_not_be_read_a_blank_one() -> None:
    frames = [picture(), ImageOps.invert(picture()), picture("L")]
    pages = [page(line(["one"]), of=3), page(number=2, of=3, error="page 2 is broken"), page(line(["three"]), number=3, of=3)]
    pdf = searchable(tiff_file(frames), "image/tiff", *pages)
    reader = pypdf.PdfReader(io.BytesIO(pdf), strict=True)
    assert ["one", "", "three"] == [sheet.extract_text() for sheet in reader.pages]
    assert np.abs(shown(pdf, index=2) - np.asarray(picture("L").convert("RGB")).astype(int)).mean() < 5
    assert (shown(pdf, index=1) == 255).all()
    assert reader.pages[1].mediabox == reader.pages[0].mediabox


def test_a_page_that_was_refused_for_its_size_is_not_decoded() -> None:
    """More pixels than any machine has memory for, in 59 bytes."""
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    pdf = searchable(content, "image/png", page(error="page 1 has too many pixels"))
    assert (595, 842) == pypdfium2.PdfDocument(pdf)[0].get_size()


def test_each_page_is_written_before_the_next_is_asked_for() -> None:
    content = tiff_file([picture()] * 3)
    writer = ImagePdfWriter(Original(content=content, media_type="image/tiff"))
    lengths = [sum(map(len, writer.page(page(number=number, of=3)))) for number in (1, 2, 3)]
    tail = sum(map(len, writer.end(None)))  # type: ignore[arg-type]
    writer.close()
    assert min(lengths) > 10_000
    assert tail < 5_000
