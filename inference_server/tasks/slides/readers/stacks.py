"""Stacks: planes of focus, points in time or channels in one file, where a slide is one image. The first plane is not taken for it."""

from __future__ import annotations

import re

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.readers import ome

# How ImageJ tells them in a TIFF's description.
_IMAGEJ = "ImageJ="
_COUNTED = re.compile(r"^(images|channels|slices|frames)=([0-9]{1,9})\s*$", re.MULTILINE)


def refuse_stacks(uri: str, description: str, *, alike: int, samples: int, told: str) -> None:
    """Raise `InvalidSlide` for one. `alike`: images as large as the slide and of its kind, itself one; `told`: of its pixels, by OME."""
    if told:
        # Of planes that are files of their own each file tells of all.
        focus, times = ome.planes(told) if alike > 1 else (1, 1)
        images, channels = 1, ome.channels(told)
    else:
        counted = {name: int(count) for name, count in _COUNTED.findall(description)} if description.startswith(_IMAGEJ) else {}
        focus, times = counted.get("slices", 1), counted.get("frames", 1)
        images = channels = max(alike, counted.get("images", 1))
    parts = [f"{count} {name}" for count, name in ((focus, "planes of focus"), (times, "points in time")) if count > 1]
    if samples > 1 and images > 1 and not parts:
        parts = [f"{images} images of one size"]
    if parts:
        raise InvalidSlide(
            f"{uri} is a stack of {' and '.join(parts)}; a slide is one image. Save the one that is to be analysed as a file of its own "
            "(ImageJ: Image, Duplicate)."
        )
    if channels > samples and (samples == 1 or told):
        raise InvalidSlide(
            f"{uri} keeps its {channels} channels as separate images; expected the colours of a pixel together. Export it again as RGB."
        )
