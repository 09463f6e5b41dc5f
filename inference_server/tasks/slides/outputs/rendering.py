"""Pictures: a heatmap on transparent ground, and an overlay on the slide's thumbnail."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from inference_server.tasks.slides.findings import Heat
from inference_server.tasks.slides.masks import stripes
from inference_server.tasks.slides.outputs import png
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


def heatmap(heat: Heat) -> bytes:
    """PNG with transparency, a whole number of pixels a cell, at most 2048 px along its longer side."""
    return png.encode(np.asarray(_fitted(Image.fromarray(_colours(heat), "RGBA"))))


def overlay(
    thumbnail: Pixels, thumbnail_scale: tuple[float, float], thumbnail_mpp: float, heat: Heat, points: NDArray[np.float64]
) -> bytes:
    """PNG of the thumbnail with the heat over its tissue, and the points where they can be told apart.

    `thumbnail_scale`: level-0 pixels per pixel along x and y; `points`: count × (x, y) in level-0 pixels.
    """
    picture = Image.fromarray(thumbnail, "RGB")
    if len(points) > 0 and thumbnail_mpp <= POINT_MPP:
        picture = _blend(picture, heat, thumbnail_scale, _HEAT_BELOW_POINTS)
        _draw_points(picture, points / np.array(thumbnail_scale), max(_POINT_RADIUS_MICROMETRES / thumbnail_mpp, 1.5))
    else:
        picture = _blend(picture, heat, thumbnail_scale, 1.0)
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


def _colours(heat: Heat, strength: float | None = None) -> Pixels:
    """RGB and opacity, all 0 where there is nothing to show.

    Without a strength opaque; else as opaque as the value asks for times the strength, and the colours are multiplied by that already.
    """
    colours = np.empty((*heat.values.shape, 4), np.uint8)
    for rows in stripes(len(colours)):
        values = heat.values[rows]
        # Of most slides a small part is shown. Four channels at once are filled and set far faster than one by one.
        stripe = np.zeros(values.shape, np.uint32)
        shown = np.isfinite(values)
        if shown.any():
            share = _share(values[shown], heat.top)
            opacity = np.ones(1) if strength is None else (_LEAST_OPACITY + (_MOST_OPACITY - _LEAST_OPACITY) * share) * strength
            stripe[shown] = _packed(_inferno(share), opacity)
        colours[rows] = stripe.view(np.uint8).reshape(*values.shape, 4)
    return colours


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


def _blend(picture: Image.Image, heat: Heat, thumbnail_scale: tuple[float, float], strength: float) -> Image.Image:
    rows, columns = heat.values.shape
    # The heat's part that the thumbnail shows, in cells: both begin at the slide's corner.
    box = (0.0, 0.0, picture.width * thumbnail_scale[0] / heat.scale[0], picture.height * thumbnail_scale[1] / heat.scale[1])
    box = (0.0, 0.0, min(box[2], columns), min(box[3], rows))
    # Colours are multiplied by their opacity: between one and nothing is less of it, not a darker one. Pillow does so of "RGBA" in a copy.
    layer = Image.frombuffer("RGBX", (columns, rows), _colours(heat, strength), "raw", "RGBX", 0, 1).resize(
        picture.size, Image.Resampling.BILINEAR, box=box
    )
    picture.paste((0, 0, 0), mask=layer.getchannel("X"))
    return ImageChops.add(picture, layer.convert("RGB"))


def _draw_points(picture: Image.Image, points: NDArray[np.float64], radius: float) -> None:
    draw = ImageDraw.Draw(picture)
    for x, y in points.tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_POINT_COLOUR)


def _fitted(picture: Image.Image) -> Image.Image:
    longest = max(picture.size)
    if longest <= _LARGEST_PICTURE:
        times = max(_SMALL_PICTURE // longest, 1)
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    size = tuple(max(round(side * _LARGEST_PICTURE / longest), 1) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.BOX)
