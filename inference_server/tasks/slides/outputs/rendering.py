"""Pictures: a heatmap on transparent ground, and an overlay on the slide's thumbnail."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from inference_server.tasks.slides.findings import Heat
from inference_server.tasks.slides.outputs import png
from inference_server.tasks.slides.tissue.cells import stripes
from inference_server.tasks.slides.values import Pixels

# The colour map inferno of matplotlib (public domain, CC0), at equal steps: even in lightness, and readable without colour vision.
_INFERNO = np.array(
    [
        (0, 0, 4),
        (22, 11, 57),
        (66, 10, 104),
        (106, 23, 110),
        (147, 38, 103),
        (188, 55, 84),
        (221, 81, 58),
        (243, 120, 25),
        (252, 165, 10),
        (246, 215, 70),
        (252, 255, 164),
    ],
    np.float64,
)
# Strength of colour over tissue where there is little to see, and where there is most.
_LEAST_OPACITY, _MOST_OPACITY = 0.10, 0.70
_LARGEST_PICTURE = 2048
# Points are drawn where a picture's pixel is no larger than this, in µm: below, they would run into each other.
POINT_MPP = 1.1
_POINT_COLOUR = (190, 255, 60)
_POINT_RADIUS_MICROMETRES = 1.5
# Of the heat's strength, where points are drawn as well.
_HEAT_BELOW_POINTS = 0.45
# Small heatmaps are enlarged by a whole number up to this, so that viewers do not blur them.
_SMALL_PICTURE = 1024
# Of a picture that are worked on at once: what that takes fits into a core's cache, and leaves no gaps of megabytes between what is kept.
_ROWS, _COLUMNS = 32, 64


def heatmap(heat: Heat) -> bytes:
    """PNG with transparency, a whole number of pixels a cell, at most 2048 px along its longer side."""
    return png.encode(_fitted(heat))


def overlay(
    thumbnail: Pixels, thumbnail_scale: tuple[float, float], thumbnail_mpp: float, heat: Heat, points: NDArray[np.float64]
) -> bytes:
    """PNG of the thumbnail with the heat over its tissue, and the points where they can be told apart.

    `thumbnail_scale`: level-0 pixels per pixel along x and y; `points`: count × (x, y) in level-0 pixels.
    """
    if len(points) == 0 or thumbnail_mpp > POINT_MPP:
        return png.encode(_blended(thumbnail, heat, thumbnail_scale, 1.0))
    picture = Image.fromarray(_blended(thumbnail, heat, thumbnail_scale, _HEAT_BELOW_POINTS), "RGB")
    _draw_points(picture, points / np.array(thumbnail_scale), max(_POINT_RADIUS_MICROMETRES / thumbnail_mpp, 1.5))
    return png.encode(np.asarray(picture))


def reach_of(sigma: float) -> int:
    """Cells on each side that a Gaussian mean takes in; σ in cells."""
    return max(int(np.ceil(3 * sigma)), 1)


def smoothed(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian mean with zeros past the edges; σ in cells."""
    reach = reach_of(sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    kernel /= kernel.sum()
    return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT), np.float64)


def _colours(heat: Heat, rows: slice, strength: float | None = None) -> Pixels:
    """RGB and opacity of some rows, all 0 where there is nothing to show.

    Without a strength opaque; else as opaque as the value asks for times the strength, and the colours are multiplied by that already.
    """
    values = heat.values[rows]
    # Of most slides a small part is shown. Four channels at once are filled and set far faster than one by one.
    colours = np.zeros(values.shape, np.uint32)
    shown = np.isfinite(values)
    if shown.any():
        share = _share(values[shown], heat.top)
        opacity = np.ones(1) if strength is None else (_LEAST_OPACITY + (_MOST_OPACITY - _LEAST_OPACITY) * share) * strength
        colours[shown] = _packed(_inferno(share), opacity)
    return colours.view(np.uint8).reshape(*values.shape, 4)


def _resized(
    heat: Heat, size: tuple[int, int], resample: Image.Resampling, box: tuple[float, float, float, float], strength: float | None = None
) -> Pixels:
    """The heat's colours as Pillow resizes them: rows first, then columns. Each a few at a time, so that they are never held whole.

    `size`: columns and rows; `box`: the part that is shown, in cells.
    """
    left, top, right, bottom = box
    lines = np.zeros((heat.values.shape[0], size[0], 4), np.uint8)
    for rows in stripes(len(lines), _ROWS):
        # Of what shows nothing, as much of a slide does, nothing is made.
        if (colours := _colours(heat, rows, strength)).any():
            stripe = _picture(colours)
            lines[rows] = np.asarray(stripe.resize((size[0], stripe.height), resample, box=(left, 0, right, stripe.height)))
    found = np.zeros((size[1], size[0], 4), np.uint8)
    for start in range(0, size[0], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        if (colours := lines[:, columns]).any():
            part = _picture(np.ascontiguousarray(colours))
            found[:, columns] = np.asarray(part.resize((part.width, size[1]), resample, box=(0, top, part.width, bottom)))
    return found


def _picture(colours: Pixels, mode: str = "RGBX") -> Image.Image:
    """Of four channels, not copied. Pillow multiplies colours by their opacity in a copy of "RGBA", and takes them as they are of this."""
    return Image.frombuffer(mode, (colours.shape[1], colours.shape[0]), colours, "raw", mode, 0, 1)


def _inferno(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGB, in whole numbers, between the first colour and the last."""
    position = shares * (len(_INFERNO) - 1)
    lower = np.minimum(position.astype(np.int64), len(_INFERNO) - 2)
    weight = position - lower
    found = [np.rint(colour[lower] * (1 - weight) + colour[1:][lower] * weight) for colour in _INFERNO.T]
    return np.stack(found, axis=1)


def _packed(colours: NDArray[np.float64], opacity: NDArray[np.float64]) -> NDArray[np.uint32]:
    """RGB times opacity, and opacity, as they lie in memory."""
    packed = np.empty((len(colours), 4), np.uint8)
    packed[:, :3] = np.rint(colours * opacity[:, None])
    packed[:, 3] = np.rint(opacity * 255)
    return packed.view(np.uint32)[:, 0]


def _share(values: NDArray[np.floating], top: float) -> NDArray[np.float64]:
    """Where values lie between the first colour and the last."""
    share: NDArray[np.float64] = np.clip(values.astype(np.float64) / top, 0, 1)
    return share


def _blended(thumbnail: Pixels, heat: Heat, thumbnail_scale: tuple[float, float], strength: float) -> Pixels:
    rows, columns = heat.values.shape
    high, wide = thumbnail.shape[:2]
    # The heat's part that the thumbnail shows, in cells: both begin at the slide's corner.
    box = (0.0, 0.0, wide * thumbnail_scale[0] / heat.scale[0], high * thumbnail_scale[1] / heat.scale[1])
    box = (0.0, 0.0, min(box[2], columns), min(box[3], rows))
    # Colours are multiplied by their opacity: between one and nothing is less of it, not a darker one.
    layer = _resized(heat, (wide, high), Image.Resampling.BILINEAR, box, strength)
    blended = np.empty_like(thumbnail)
    for some in stripes(high, _ROWS):
        picture, colours = Image.fromarray(thumbnail[some], "RGB"), _picture(layer[some])
        picture.paste((0, 0, 0), mask=colours.getchannel("X"))
        blended[some] = np.asarray(ImageChops.add(picture, colours.convert("RGB")))
    return blended


def _draw_points(picture: Image.Image, points: NDArray[np.float64], radius: float) -> None:
    draw = ImageDraw.Draw(picture)
    for x, y in points.tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_POINT_COLOUR)


def _fitted(heat: Heat) -> Pixels:
    rows, columns = heat.values.shape
    longest = max(rows, columns)
    if longest <= _LARGEST_PICTURE:
        times = max(_SMALL_PICTURE // longest, 1)
        colours = np.empty((rows, columns, 4), np.uint8)
        for some in stripes(rows, _ROWS):
            colours[some] = _colours(heat, some)
        return colours.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else colours
    high, wide = (max(round(side * _LARGEST_PICTURE / longest), 1) for side in (rows, columns))
    # What is shown is opaque, and what is not has no colour: both are multiplied by their opacity already.
    shrunk = _resized(heat, (wide, high), Image.Resampling.BOX, (0, 0, columns, rows))
    for some in stripes(high, _ROWS):
        shrunk[some] = np.asarray(_picture(shrunk[some], "RGBa").convert("RGBA"))
    return shrunk
