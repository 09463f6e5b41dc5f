"""Pages of PNG, JPEG, TIFF, WebP and HEIC files. Pixels are decoded only after the header's sizes were checked."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.values import Limits, Page, TextLayer

# Named one by one: `Image.open` would try every format that it knows, and has size limits of its own.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "image/png": PngImageFile,
    "image/jpeg": JpegImageFile,
    "image/tiff": TiffImageFile,
    "image/webp": WebPImageFile,
}
# Its wheel brings libraries under the LGPL and the GPL, and is therefore an extra of its own.
with suppress(ImportError):
    from pillow_heif import HeifImageFile

    _READERS["image/heic"] = HeifImageFile

# What Pillow raises on damaged files, by its plugins and its codecs.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, IndexError, OverflowError, Image.DecompressionBombError)


class ImagePages:
    """An image file: one page, or for TIFF one a frame."""

    def __init__(self, content: bytes, media_type: str, *, limits: Limits) -> None:
        """Reads the headers only. Raises `InvalidDocument` when they are broken."""
        if media_type not in _READERS:
            raise InvalidDocument(
                "the document is a HEIC image, which this server does not read: install it with the extra lamina[heic], or send a JPEG."
            )
        self.media_type = media_type
        self._limits = limits
        self._lock = threading.Lock()
        try:
            self._image = open_image(content, media_type)
            # Frames of other formats are an animation or a preview.
            self.page_count = int(getattr(self._image, "n_frames", 1)) if media_type == "image/tiff" else 1
        except DAMAGE as error:
            raise InvalidDocument(f"the {_name(media_type)} file is broken: its header cannot be read. Save or scan it again.") from error

    def page(self, index: int) -> Page:
        """Decode the page at `index`, from 0, turned upright as its EXIF orientation says."""
        with self._lock:
            try:
                if self.page_count > 1:
                    self._image.seek(index)
                self._check_size(index + 1)
                return upright_rgb(self._image)
            except InvalidDocument:
                raise
            except DAMAGE as error:
                raise InvalidDocument(
                    f"page {index + 1} cannot be decoded: the {_name(self.media_type)} file is damaged or cut off. Save or scan it again."
                ) from error

    def text_layer(self, index: int) -> TextLayer | None:
        """None: an image holds no text of its own."""

    def close(self) -> None:
        """Free the file."""
        with self._lock:
            self._image.close()

    def _check_size(self, number: int) -> None:
        width, height = self._image.size
        if width < 1 or height < 1:
            raise InvalidDocument(f"page {number} has no pixels ({width} × {height}).")
        if width * height > self._limits.most_page_pixels:
            raise InvalidDocument(
                f"page {number} has {width} × {height} pixels; at most {self._limits.most_page_pixels} pixels are accepted. "
                "Scale it down, or scan at a lower resolution.",
                limit="page_pixels",
            )


def open_image(content: bytes, media_type: str) -> ImageFile.ImageFile:
    """The image behind its header, not decoded. Raises what Pillow raises on damaged files."""
    return _READERS[media_type](io.BytesIO(content))


def upright_rgb(image: Image.Image) -> Page:
    """The pixels, turned as EXIF says, on white paper. Raises what Pillow raises on damaged files."""
    image.load()
    # Pillow copies what it need not change: some milliseconds of a large page.
    upright: Image.Image = image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    if upright.has_transparency_data:
        # Transparent paper is white, whatever colour is written under it.
        paper = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(paper, upright.convert("RGBA"))
    return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _eight_bits(image: Image.Image) -> Image.Image:
    values: Any = np.asarray(image).astype(np.float32)
    darkest, lightest = float(values.min()), float(values.max())
    if image.mode == "F" or lightest > 65535 or darkest < 0:
        values = (values - darkest) * (255 / max(lightest - darkest, 1e-6))
    elif lightest > 255:
        values = values / 257
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _name(media_type: str) -> str:
    return {"image/webp": "WebP"}.get(media_type, media_type.removeprefix("image/").upper())
