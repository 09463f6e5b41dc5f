"""Finds the reader of a slide by its first bytes, and says clearly when there is none."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from inference_server.errors import InvalidSlide
from inference_server.storage import Storage, StoredObject
from inference_server.tasks.slides.readers.image import ImageReader
from inference_server.tasks.slides.readers.openslide import OpenSlideReader
from inference_server.tasks.slides.readers.port import NotThisReader, SlideReader
from inference_server.tasks.slides.readers.tiff import TiffReader
from inference_server.tasks.slides.values import SlideLimits

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
# DICOM's mark comes last in the first 132 bytes.
_DICOM = b"DICM"
_HEAD_BYTES = 132
_KNOWN = "TIFF (SVS, OME and generic pyramids), NDPI, MRXS, SCN, BIF, DICOM, or a PNG or JPEG"


@contextlib.asynccontextmanager
async def open_slide(storage: Storage, uri: str, limits: SlideLimits) -> AsyncIterator[SlideReader]:
    """Open a slide for as long as the block lasts. Raises `NotFound`, `AccessDenied`, `InvalidSlide`, `Unavailable`."""
    found = await storage.open(uri)
    if found.size_bytes == 0:
        raise InvalidSlide(f"{uri} is empty (0 bytes). Upload it again.")
    head = await storage.read_range(found, 0, min(_HEAD_BYTES, found.size_bytes))
    async with contextlib.AsyncExitStack() as stack:
        reader = await _open(storage, found, head, limits, stack)
        stack.push_async_callback(reader.close)
        yield reader


async def _open(storage: Storage, found: StoredObject, head: bytes, limits: SlideLimits, stack: contextlib.AsyncExitStack) -> SlideReader:
    if head.startswith(_TIFF):
        try:
            return await TiffReader.open(storage, found, head, limits)
        except NotThisReader as error:
            reason = str(error)
    else:
        reason = f"{found.uri} is no slide: it begins with {head[:8]!r}, and {_KNOWN} was expected"
    if found.local_path is None and not head.startswith((*_TIFF, *_PICTURES)) and not head.endswith(_DICOM):
        raise InvalidSlide(f"{reason}. Check that the file is what its name says, and that it was uploaded whole.")
    path = await _local(storage, found, limits, stack)
    try:
        return await OpenSlideReader.open(found.uri, path, limits)
    except NotThisReader as error:
        if head.startswith((*_TIFF, *_PICTURES)):
            return await ImageReader.open(found.uri, path, limits)
        raise InvalidSlide(f"{reason}. Check that the file is what its name says, and that it was uploaded whole.") from error


async def _local(storage: Storage, found: StoredObject, limits: SlideLimits, stack: contextlib.AsyncExitStack) -> Path:
    """The file itself, or a copy that lives as long as the reader: OpenSlide and Pillow read no URLs."""
    if found.local_path is not None:
        return found.local_path
    if found.size_bytes > limits.most_staged_bytes:
        raise InvalidSlide(
            f"{found.uri} must be copied to local disk to be read, and has {found.size_bytes:,} bytes; "
            f"at most {limits.most_staged_bytes:,} are. "
            "Convert it to a tiled TIFF, which is read in place.",
            limit="staged_bytes",
        )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamina-slide-")))
    path = folder / Path(found.key).name
    await storage.download(found, path)
    return path
