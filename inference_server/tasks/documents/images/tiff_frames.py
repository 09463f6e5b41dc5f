"""The frames of a TIFF file (TIFF 6.0; BigTIFF), found by one walk along the chain of their directories.

Pillow looks each frame's place up in a list of all before it, and reads all of them on the way to the last: time that grows with the square
of their number. Here each frame is opened by itself, as the first of the file.
"""

from __future__ import annotations

import io
import struct

from PIL.TiffImagePlugin import TiffImageFile

from inference_server.errors import InvalidDocument

# As many directories are followed within a tenth of a second; requests name pages of larger files than they may read whole.
_MOST_FRAMES = 100_000
_BIG = 43
# Of TIFF 6.0. Where each colour lies by itself Pillow takes two bytes of one pixel for two pixels.
_BITS, _PLANAR, _COLOUR_BY_COLOUR, _MOST_BITS = 258, 284, 2, 8
# What Pillow says of pixels that it does not know.
_UNKNOWN_PIXELS = "unknown pixel mode"


class TiffFrames:
    """Opens the frames one at a time. Not for several threads at once."""

    def __init__(self, content: bytes) -> None:
        """Raises `InvalidDocument` where there are too many, and `ValueError` where there is none."""
        self._file = io.BytesIO(content)
        order = "<" if content[:2] == b"II" else ">"
        (kind,) = struct.unpack_from(f"{order}H", content, 2)
        # In BigTIFF sizes and places have 8 bytes, entries 20 instead of 12.
        self._first_at, self._place = (8, struct.Struct(f"{order}Q")) if kind == _BIG else (4, struct.Struct(f"{order}I"))
        self._count, self._entry = (struct.Struct(f"{order}Q"), 20) if kind == _BIG else (struct.Struct(f"{order}H"), 12)
        self._offsets = self._walk(content)

    def __len__(self) -> int:
        return len(self._offsets)

    def open(self, index: int) -> TiffImageFile:
        """The frame at `index` behind its directory, not decoded.

        Raises `InvalidDocument` where its kind of pixels is not read, and what Pillow raises on damaged files.
        """
        if len(self) > 1:
            # The file names this frame as its first one. Nothing else is changed, so that all other places hold.
            self._file.seek(self._first_at)
            self._file.write(self._place.pack(self._offsets[index]))
        self._file.seek(0)
        try:
            image = TiffImageFile(self._file)
        except SyntaxError as error:
            raise (_unread(index + 1) if str(error) == _UNKNOWN_PIXELS else error) from error
        if image.tag_v2.get(_PLANAR) == _COLOUR_BY_COLOUR and max(image.tag_v2.get(_BITS, (1,))) > _MOST_BITS:
            raise _unread(index + 1)
        return image

    def close(self) -> None:
        """Free the file."""
        self._file.close()

    def _walk(self, content: bytes) -> list[int]:
        found: dict[int, None] = {}
        try:
            (offset,) = self._place.unpack_from(content, self._first_at)
            # A chain that comes back to a frame ends there.
            while offset and offset not in found:
                if len(found) == _MOST_FRAMES:
                    raise InvalidDocument(
                        f"the TIFF file has more than {_MOST_FRAMES} pages. Split it into several files.", limit="document_pages"
                    )
                found[offset] = None
                (entries,) = self._count.unpack_from(content, offset)
                (offset,) = self._place.unpack_from(content, offset + self._count.size + entries * self._entry)
        except (struct.error, OverflowError) as error:
            # Cut off, or named behind all that a file can hold, in the last one: that page has an error, those before it have none.
            if not found:
                raise ValueError("no frame") from error
        if not found:
            raise ValueError("no frame")
        return list(found)


def _unread(number: int) -> InvalidDocument:
    return InvalidDocument(
        f"page {number} of the TIFF file has pixels of a kind that is not read, as of 16 bits colour by colour. Save it in 8 bits "
        "of grey or RGB."
    )
