"""Images as streams of a PDF: the file's own bytes where a filter of PDF reads them, else the same pixels, packed without loss."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import ImageFile

from inference_server.tasks.documents.images.files import upright_rgb

_POINTS_PER_INCH = 72
# Where an image does not say its resolution, or says nonsense, as many cameras do.
_USUAL_DPI = 200
_LOWEST_DPI, _HIGHEST_DPI = 50, 2400
# Longer sides are refused by many readers.
_MOST_POINTS = 14_400

_ORIENTATION = 0x0112
_SPACES = {1: "/DeviceGray", 3: "/DeviceRGB", 4: "/DeviceCMYK"}
_PNG_COLOURS = {0: 1, 2: 3, 3: 1}

# Tags of TIFF (TIFF 6.0, and its technical notes for JPEG and deflate).
_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _STRIP_BYTES, _SAMPLES, _BITS = 259, 262, 266, 273, 279, 277, 258
_WIDTH, _HEIGHT = 256, 257
_PLANAR, _PREDICTOR, _EXTRA, _JPEG_TABLES, _ROWS_PER_STRIP, _SAMPLE_FORMAT = 284, 317, 338, 347, 278, 339
_GROUP_4, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE = 4, 5, 7, 8, 32946
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6


@dataclass(frozen=True, kw_only=True)
class ImageStream:
    """An image as PDF has it."""

    width: int
    height: int
    # Its dictionary beside the size: filter, colours.
    entries: Mapping[str, object]
    data: bytes = field(repr=False)
    # Of RGB triples, where its pixels are indices.
    palette: bytes = b""
    # As EXIF tells how it is to be turned, 1 to 8.
    orientation: int = 1

    def placed(self, width: float, height: float) -> tuple[float, ...]:
        """The matrix a b c d e f that shows it upright on a page of `width` × `height` points."""
        return {
            2: (-width, 0, 0, height, width, 0),
            3: (-width, 0, 0, -height, width, height),
            4: (width, 0, 0, -height, 0, height),
            5: (0, -height, -width, 0, width, height),
            6: (0, -height, width, 0, 0, height),
            7: (0, height, width, 0, 0, 0),
            8: (0, height, -width, 0, width, 0),
        }.get(self.orientation, (width, 0, 0, height, 0, 0))


def image_stream(image: ImageFile.ImageFile, content: bytes, media_type: str) -> ImageStream:
    """The image that is open, out of its file. Raises what Pillow raises on damaged files."""
    own = {"image/jpeg": _jpeg, "image/png": _png, "image/tiff": _tiff}.get(media_type)
    return (own and own(image, content)) or _repacked(image)


def points_of(image: ImageFile.ImageFile, width: int, height: int) -> tuple[float, float]:
    """The size of a page that shows an upright image of `width` × `height` pixels in its own resolution."""
    across, down = (_resolution(value) for value in _told_resolution(image))
    if _orientation(image) > 4:
        across, down = down, across
    size = (width * _POINTS_PER_INCH / across, height * _POINTS_PER_INCH / down)
    shrunk = min(1.0, _MOST_POINTS / max(size))
    return size[0] * shrunk, size[1] * shrunk


def _told_resolution(image: ImageFile.ImageFile) -> tuple[float, float]:
    told = image.info.get("dpi")
    return (float(told[0]), float(told[1])) if isinstance(told, tuple) and len(told) == 2 else (0.0, 0.0)


def _resolution(told: float) -> float:
    return told if _LOWEST_DPI <= told <= _HIGHEST_DPI else _USUAL_DPI


def _orientation(image: ImageFile.ImageFile) -> int:
    told = image.getexif().get(_ORIENTATION, 1)
    return told if told in range(1, 9) else 1


def _jpeg(image: ImageFile.ImageFile, content: bytes) -> ImageStream | None:
    bands = len(image.getbands())
    entries: dict[str, object] = {"ColorSpace": _SPACES[bands], "BitsPerComponent": 8, "Filter": "/DCTDecode"}
    if bands == 4 and "adobe" in image.info:
        # Adobe's programs write such inks the other way round.
        entries["Decode"] = "[1 0 1 0 1 0 1 0]"
    return ImageStream(width=image.width, height=image.height, entries=entries, data=content, orientation=_orientation(image))


def _png(image: ImageFile.ImageFile, content: bytes) -> ImageStream | None:
    chunks = list(_chunks(content))
    header = next(data for kind, data in chunks if kind == b"IHDR")
    bits, colour, interlaced = header[8], header[9], header[12]
    if interlaced or colour not in _PNG_COLOURS or any(kind == b"tRNS" for kind, _ in chunks):
        return None
    palette = next((data for kind, data in chunks if kind == b"PLTE"), b"") if colour == 3 else b""
    colours = _PNG_COLOURS[colour]
    return ImageStream(
        width=image.width,
        height=image.height,
        entries={
            "ColorSpace": _SPACES[colours],
            "BitsPerComponent": bits,
            "Filter": "/FlateDecode",
            "DecodeParms": f"<< /Predictor 15 /Colors {colours} /BitsPerComponent {bits} /Columns {image.width} >>",
        },
        data=b"".join(data for kind, data in chunks if kind == b"IDAT"),
        palette=palette,
        orientation=_orientation(image),
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position + 8 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        yield kind, content[position + 8 : position + 8 + length]
        if kind == b"IEND":
            return
        position += 12 + length


def _tiff(image: ImageFile.ImageFile, content: bytes) -> ImageStream | None:
    """Of one strip, in a compression that PDF has too."""
    tags = _tags(image)
    offsets, lengths = tags.get(_STRIPS, ()), tags.get(_STRIP_BYTES, ())
    if len(offsets) != 1 or len(lengths) != 1 or tags.get(_PLANAR, (1,)) != (1,) or tags.get(_FILL_ORDER, (1,)) != (1,):
        return None
    # As the strip lies in the file: Pillow tells the sides of a frame that stands on its side as they are once it is turned.
    (width,), (height,) = tags[_WIDTH], tags[_HEIGHT]
    entries = _tiff_entries(tags, width, height)
    data = content[offsets[0] : offsets[0] + lengths[0]]
    if entries is None or len(data) != lengths[0]:
        return None
    return ImageStream(width=width, height=height, entries=entries, data=data, orientation=_orientation(image))


def _tags(image: ImageFile.ImageFile) -> dict[int, tuple[int, ...]]:
    found = getattr(image, "tag_v2", {})
    return {tag: value if isinstance(value, tuple) else (value,) for tag, value in found.items() if tag in range(254, 348)}


def _tiff_entries(tags: Mapping[int, tuple[int, ...]], width: int, height: int) -> dict[str, object] | None:
    compression, photometric = tags.get(_COMPRESSION, (1,))[0], tags.get(_PHOTOMETRIC, (_BLACK_IS_ZERO,))[0]
    colours = tags.get(_SAMPLES, (1,))[0]
    if compression == _GROUP_4 and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        inverted = "true" if photometric == _BLACK_IS_ZERO else "false"
        parameters = f"<< /K -1 /Columns {width} /Rows {height} /BlackIs1 {inverted} >>"
        return {"ColorSpace": "/DeviceGray", "BitsPerComponent": 1, "Filter": "/CCITTFaxDecode", "DecodeParms": parameters}
    if any(bits != 8 for bits in tags.get(_BITS, (1,))) or _EXTRA in tags or any(one != 1 for one in tags.get(_SAMPLE_FORMAT, (1,))):
        return None
    usual = (colours, photometric) in ((1, _BLACK_IS_ZERO), (3, _RGB))
    entries: dict[str, object] = {"ColorSpace": _SPACES.get(colours, ""), "BitsPerComponent": 8}
    if compression == _JPEG and _JPEG_TABLES not in tags and (usual or (colours, photometric) == (3, _YCBCR)):
        transformed = 1 if photometric == _YCBCR else 0
        return {**entries, "Filter": "/DCTDecode", "DecodeParms": f"<< /ColorTransform {transformed} >>"}
    predictor = tags.get(_PREDICTOR, (1,))[0]
    if compression in (_LZW, _DEFLATE, _OLD_DEFLATE) and usual and predictor in (1, 2):
        parameters = f"<< /Predictor {predictor} /Colors {colours} /BitsPerComponent 8 /Columns {width} >>"
        return {**entries, "Filter": "/LZWDecode" if compression == _LZW else "/FlateDecode", "DecodeParms": parameters}
    return None


def _repacked(image: ImageFile.ImageFile) -> ImageStream:
    """The pixels that were read, upright, in as few bits as they need."""
    pixels = upright_rgb(image)
    height, width = pixels.shape[:2]
    entries: dict[str, object] = {"ColorSpace": "/DeviceRGB", "BitsPerComponent": 8, "Filter": "/FlateDecode"}
    packed = pixels
    if (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 0] == pixels[:, :, 2]).all():
        packed, entries["ColorSpace"] = pixels[:, :, 0], "/DeviceGray"
        if np.isin(packed, (0, 255)).all():
            packed, entries["BitsPerComponent"] = np.packbits(packed > 0, axis=1), 1
    return ImageStream(width=width, height=height, entries=entries, data=zlib.compress(np.ascontiguousarray(packed).tobytes()))
