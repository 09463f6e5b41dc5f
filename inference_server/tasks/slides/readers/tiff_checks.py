"""What is refused of a TIFF in tiles before any of them is read. Directories are async-tiff's."""

from __future__ import annotations

from typing import Any

from async_tiff.enums import PhotometricInterpretation, PlanarConfiguration, Predictor, SampleFormat

from inference_server.errors import InvalidSlide
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.readers.port import CONVERT, NotThisReader
from inference_server.tasks.slides.readers.tiff_headers import FILL_ORDER, JPEG2000, JPEG2000_OF_EITHER, SHIFT, Places
from inference_server.tasks.slides.readers.tiles import CODED, DECODED
from inference_server.tasks.slides.values import SlideLimits

_GREYS = {PhotometricInterpretation.BlackIsZero, PhotometricInterpretation.WhiteIsZero}
_COLOURS = frozenset({PhotometricInterpretation.RGB, PhotometricInterpretation.YCbCr, *_GREYS})
# For messages (TIFF 6.0, PhotometricInterpretation).
_PHOTOMETRICS = {0: "grey", 1: "grey", 2: "RGB", 3: "a palette", 4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*"}
# The first pixel of a byte in its lowest bit: nothing but libtiff turns them round.
_LOWEST_FIRST = 2


def check_bounds(uri: str, directory: Any, limits: SlideLimits) -> None:
    """Raise `InvalidSlide` for an image without pixels, or one that is larger, or in larger tiles, than is taken."""
    width, height = directory.image_width, directory.image_height
    if width < 1 or height < 1:
        raise InvalidSlide(f"{uri} says that it has {width} × {height} px; it is damaged. Copy or export it again.")
    if width * height > limits.most_slide_pixels:
        raise InvalidSlide(
            f"{uri} has {width} × {height} px; at most {limits.most_slide_pixels:,} px are accepted. Crop it.", limit="slide_pixels"
        )
    tile_pixels = directory.tile_width * directory.tile_height
    if not 0 < tile_pixels <= limits.most_tile_pixels:
        raise InvalidSlide(
            f"{uri} is stored in tiles of {directory.tile_width} × {directory.tile_height} px; "
            f"at most {limits.most_tile_pixels:,} px a tile "
            "are accepted. Export it with tiles of 256 × 256 or 512 × 512.",
            limit="tile_pixels" if tile_pixels > 0 else "",
        )


def check_decodable(uri: str, directory: Any) -> None:
    """Raise `InvalidSlide` for pixels of a kind that no reader takes, `NotThisReader` for such as another reader takes."""
    samples, photometric = directory.samples_per_pixel, directory.photometric_interpretation
    is_signed = SampleFormat.Int in (directory.sample_format or ())
    is_known = samples in (1, 3, 4) and photometric in _COLOURS and (samples == 1 or photometric not in _GREYS)
    if set(directory.bits_per_sample) != {8} or is_signed or not is_known:
        raise InvalidSlide(
            f"{uri} has {samples} samples of {list(directory.bits_per_sample)} bits{' with a sign' * is_signed}, photometric "
            f"{int(photometric)} ({_PHOTOMETRICS.get(int(photometric), 'unknown')}); "
            "expected 8-bit RGB, YCbCr or grey. Export it again as 8-bit RGB."
        )
    is_jpeg2000 = directory.compression in {*JPEG2000, JPEG2000_OF_EITHER}
    is_coded, is_planar = directory.compression in CODED, directory.planar_configuration == PlanarConfiguration.Planar
    # As Bio-Formats writes them: R, G, B, of which it says that they are Y, Cb, Cr. OpenSlide and libvips read neither.
    if is_planar and (is_jpeg2000 or (is_coded and photometric == PhotometricInterpretation.YCbCr)):
        raise InvalidSlide(
            f"{uri} keeps its colours apart, each compressed by method {int(directory.compression)} as a picture of its own; "
            "expected the colours of a pixel together. Export it again as interleaved RGB, or by another method such as LZW."
        )
    if directory.compression == JPEG2000_OF_EITHER and samples > 1:
        raise InvalidSlide(
            f"{uri} is JPEG 2000 by the number 33004, by which libvips means Y, Cb, Cr and others R, G, B: its colours cannot be told. "
            f"If libvips wrote it, c{CONVERT[1:]}. Else export it again by another method, such as deflate."
        )
    if directory.compression not in DECODED:
        raise NotThisReader(f"{uri} is compressed by method {int(directory.compression)}")
    if photometric == PhotometricInterpretation.YCbCr and not is_coded:
        raise NotThisReader(f"{uri} has brightness and colour apart, and neither JPEG nor JPEG 2000 that tells how")
    is_predicted = directory.predictor not in (None, Predictor.Unknown)
    if is_planar and (is_coded or is_predicted):
        raise NotThisReader(f"{uri} keeps its colours apart, each compressed in a way that only colours together are read in")
    if not is_coded and directory.other_tags.get(FILL_ORDER) == _LOWEST_FIRST:
        raise NotThisReader(f"{uri} has the bits of its bytes in the order that few programs write")


def check_places(found: StoredObject, directory: Any, places: Places) -> None:
    """Raise `InvalidSlide` where a tile is missing or reaches past the file's end."""
    across, down = directory.tile_count
    needed = across * down * (directory.samples_per_pixel if directory.planar_configuration == PlanarConfiguration.Planar else 1)
    if places.offsets.max(initial=0) >= SHIFT:
        raise InvalidSlide(f"{found.uri} is damaged: it has a tile that lies far past its end. Copy or upload it again, whole.")
    size, starts, counts = found.size_bytes, places.offsets, places.byte_counts
    # Each by itself first: sums of what is larger may go past 64 bits.
    is_within = max(starts.max(initial=0), counts.max(initial=0)) <= size and (starts + counts).max(initial=0) <= size
    if len(starts) < needed:
        raise InvalidSlide(
            f"{found.uri} is damaged: it consists of {needed:,} tiles by its size, and tells where {len(starts):,} of them lie. "
            "Copy or export it again."
        )
    if not is_within:
        end = max((start + count for start, count in zip(starts.tolist(), counts.tolist(), strict=True)), default=0)
        raise InvalidSlide(
            f"{found.uri} is truncated: it has {size:,} bytes, and its {needed} tiles end at {end:,}. Copy or upload it again, whole."
        )
