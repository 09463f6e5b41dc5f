"""Colours as the scanner meant them: a slide's ICC profile applied, on request."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageCms

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.readers.port import SlideReader
from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.values import Pixels, Position, SlideFacts
from inference_server.threads import on_core


class ManagedColours:
    """Another reader whose tiles are brought to sRGB, by the profile's perceptual intent."""

    def __init__(self, reader: SlideReader) -> None:
        """Raises `InvalidSlide` when the slide's profile cannot be read, or is not one of R, G, B."""
        self._reader = reader
        self._transform = _transform(reader.facts)

    @property
    def facts(self) -> SlideFacts:
        """What the slide is."""
        return self._reader.facts

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        """As the reader does. What was never scanned stays white."""
        tiles = await self._reader.read_tiles(level, places, soon)
        return await on_core(lambda: [tile if tile is None else self._managed(tile) for tile in tiles])

    async def close(self) -> None:
        """Close the reader."""
        await self._reader.close()

    def _managed(self, tile: Pixels) -> Pixels:
        if tile.min() == WHITE:
            return tile
        picture = ImageCms.applyTransform(Image.fromarray(tile), self._transform)
        return np.asarray(picture)


def with_managed_colours(reader: SlideReader) -> SlideReader:
    """The reader with its profile applied; the reader itself where the slide has none, which means sRGB. Raises `InvalidSlide`."""
    return ManagedColours(reader) if reader.facts.icc_profile else reader


def _transform(facts: SlideFacts) -> ImageCms.ImageCmsTransform:
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(facts.icc_profile))
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise InvalidSlide(
            f"{facts.uri} has an ICC profile that cannot be applied: it is damaged, or not one of RGB. Leave apply_icc_profile out."
        ) from error
