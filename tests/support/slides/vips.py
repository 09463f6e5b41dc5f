"""Tiled pyramids as libvips writes them, for which nothing of ours is used."""

from __future__ import annotations

from pathlib import Path

import pyvips

# Of JPEG, by whether R, G, B are stored as components: from 90 on libvips does that, below it stores Y, Cb, Cr with a quarter of the
# colours' samples. Its option `rgbjpeg` changes the tag alone, so that below 90 the file tells a photometric that it does not have.
QUALITIES = {True: 90, False: 80}


def save_pyramid(
    path: Path, pixels: pyvips.Image, *, description: str = "", tile: int = 256, rgb_components: bool = False, bigtiff: bool = False
) -> Path:
    """A JPEG TIFF with levels by 2 down to one tile; `description`: of every level, as libvips has it."""
    told = pixels.copy()
    if description:
        told.set_type(pyvips.GValue.gstr_type, "image-description", description)
    told.tiffsave(
        str(path),
        compression="jpeg",
        Q=QUALITIES[rgb_components],
        tile=True,
        tile_width=tile,
        tile_height=tile,
        pyramid=True,
        bigtiff=bigtiff,
    )
    return path
