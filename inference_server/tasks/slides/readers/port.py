"""The port that every reader of slides fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.values import Pixels, Position, SlideFacts

# How to mend what no reader takes.
CONVERT = "Convert it to a tiled pyramid: vips tiffsave in.tif out.tif --tile --pyramid --bigtiff --compression jpeg"

# And what libvips reads only where it was built with the method.
RECODE = (
    'Store it anew by tifffile with imagecodecs, which hold it in memory: python -c "import tifffile as t; '
    "p = t.TiffFile('in.tif').pages[0]; t.imwrite('out.tif', p.asarray(), bigtiff=True, tile=(256, 256), photometric=p.photometric, "
    "extrasamples=p.extrasamples, compression='deflate', resolution=p.resolution, resolutionunit=p.resolutionunit)\""
)


class SlideReader(Protocol):
    """One open slide, read tile by tile as it is stored."""

    @property
    def facts(self) -> SlideFacts:
        """What the slide is."""

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        """The tiles at (column, row), each tile_height × tile_width × RGB, in the order asked; None for one that cannot be decoded.

        What lies past the level's edge is undefined in an edge tile. Tiles that were never scanned are white. Raises `Unavailable`.
        `soon`: others that will be asked for; what they are made from may be fetched along.
        """

    async def close(self) -> None:
        """Let go of files and memory."""


class NotThisReader(InvalidSlide):
    """A file is well, but another reader must read it. The message says why, for the case that none can."""
