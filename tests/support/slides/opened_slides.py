"""Slides on this machine, opened as the server opens them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_server.storage.storage import Storage
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.port import SlideReader
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideFacts, SlideLimits

LIMITS = SlideLimits()


def open_at(path: Path, *, root: Path | None = None, limits: SlideLimits = LIMITS) -> contextlib.AbstractAsyncContextManager[SlideReader]:
    """`root`: what may be read; the slide's folder where none is given."""
    storage = Storage(read_roots=(str(root or path.parent),), write_roots=())
    return open_slide(storage, str(path), limits, Staging(storage, most_bytes=1 << 30))


async def facts_of(path: Path) -> SlideFacts:
    async with open_at(path) as reader:
        return reader.facts


async def whole(path: Path) -> NDArray[np.uint8]:
    """All of level 0."""
    async with open_at(path) as reader:
        level = reader.facts.levels[0]
        return await Regions(reader, cache_bytes=0, most_unreadable=0.0).read(0, 0, 0, level.width, level.height)
