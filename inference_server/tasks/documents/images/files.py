"""Pages of PNG, JPEG, TIFF, WebP and HEIC files. Pixels are decoded only after the header's sizes were checked."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.images.depth import eight_bits
from inference_server.tasks.documents.images.tiff_frames import TiffFrames
from inference_server.tasks.documents.values import Limits, Page

# Named one by one: `Image.open` would try every format that it knows, and has size limits of its own.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "image/png": PngImageFile,
    "image/jpeg": JpegImageFile,
    "image/webp": WebPImageFile,
}
# Its wheel brings libraries under the LGPL and the GPL, and is therefore an extra of its own.
with suppress(ImportError):
    from pillow_heif import HeifImageFile

    _READERS["image/heic"] = HeifImageFile

# Of TIFF 6.0.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

# Compressions of TIFF that not every build of Pillow reads.
_RARE = {"webp": "WebP", "zstd": "Zstandard", "lzma": "LZMA", "jpeg": "JPEG", "tiff_jpeg": "the old JPEG"}

# What Pillow raises on damaged files, by its plugins and its codecs.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, IndexError, OverflowError, Image.DecompressionBombError)


class ImagePages:
    """An image file: one page, or for TIFF one a frame."""

    def __init__(self, content: bytes, media_type: str, *, limits: Limits) -> None:
        """Reads the headers only. Raises `InvalidDocument` when they are broken."""
        if media_type == "image/heic" and media_type not in _READERS:
            raise InvalidDocument(
                "the document is a HEIC image, which this server does not read: install it with the extra lamina[heic], or send a JPEG."
            )
        self.media_type = media_type
        self._limits = limits
        self._lock = threading.Lock()
        try:
            self._images = images_of(content, media_type)
            self._images.open(0)
        except DAMAGE as error:
            raise InvalidDocument(f"the {_name(media_type)} file is broken: its header cannot be read. Save or scan it again.") from error
        self.page_count = len(self._images)

    def page(self, index: int) -> Page:
        """Decode the page at `index`, from 0, turned upright as its EXIF orientation says, of HEIC its `irot` and `imir`."""
        with self._lock:
            try:
                image = self._images.open(index)
                self._check_size(index + 1, image)
                return upright_rgb(image)
            except InvalidDocument:
                raise
            except DAMAGE as error:
                raise InvalidDocument(self._undecoded(index)) from error

    def close(self) -> None:
        """Free the file."""
        with self._lock:
            self._images.close()

    def _undecoded(self, index: int) -> str:
        told = f"page {index + 1} cannot be decoded: the {_name(self.media_type)} file is damaged or cut off"
        # Pillow does not tell a compression that it was built without from a damage.
        with suppress(InvalidDocument, *DAMAGE):
            if rare := _RARE.get(str(self._images.open(index).info.get("compression"))):
                told = f"{told}, or this server does not read its compression, {rare}"
        return f"{told}. Save or scan it again."

    def _check_size(self, number: int, image: ImageFile.ImageFile) -> None:
        width, height = image.size
        if width < 1 or height < 1:
            raise InvalidDocument(f"page {number} has no pixels ({width} × {height}).")
        if width * height > self._limits.most_page_pixels:
            raise InvalidDocument(
                f"page {number} has {width} × {height} pixels; at most {self._limits.most_page_pixels} pixels are accepted. "
                "Scale it down, or scan at a lower resolution.",
                limit="page_pixels",
            )


class Images(Protocol):
    """The images of a file, opened one at a time, not decoded. Not for several threads at once."""

    def __len__(self) -> int:
        """How many there are."""

    def open(self, index: int) -> ImageFile.ImageFile:
        """The image at `index`, from 0, behind its header. Raises what Pillow raises on damaged files."""

    def close(self) -> None:
        """Free the file."""


class _OneImage:
    """A file's only image: further frames are an animation or a preview."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self._image = _READERS[media_type](io.BytesIO(content))

    def __len__(self) -> int:
        return 1

    def open(self, index: int) -> ImageFile.ImageFile:
        """The image, which is decoded once."""
        return self._image

    def close(self) -> None:
        """Free the file."""
        self._image.close()


def images_of(content: bytes, media_type: str) -> Images:
    """The images of a file. Raises `InvalidDocument`, and what Pillow raises on damaged files."""
    return TiffFrames(content) if media_type == "image/tiff" else _OneImage(content, media_type)


def upright_rgb(image: Image.Image) -> Page:
    """The pixels, turned as EXIF says, on white paper. Raises what Pillow raises on damaged files."""
    image.load()
    # Pillow copies what it need not change: some milliseconds of a large page.
    upright: Image.Image = image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        # Pillow turns the levels of a TIFF of up to eight bits round itself.
        white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        upright = Image.fromarray(eight_bits(np.asarray(upright), white_is_zero=white_is_zero))
    if upright.has_transparency_data:
        # Transparent paper is white, whatever colour is written under it.
        paper = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(paper, upright.convert("RGBA"))
    return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _name(media_type: str) -> str:
    return {"image/webp": "WebP"}.get(media_type, media_type.removeprefix("image/").upper())
