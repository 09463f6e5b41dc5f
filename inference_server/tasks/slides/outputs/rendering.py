"""Pictures: a heatmap on transparent ground, and an overlay on the slide's thumbnail."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inference_server.tasks.slides.findings import Heat
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
    colours, shown = _colours(heat)
    opacity = np.where(shown, 255, 0).astype(np.uint8)
    picture = Image.fromarray(np.dstack([colours, opacity]), "RGBA")
    return _png(_fitted(picture))


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
    return _png(picture)


def smoothed(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian mean with zeros past the edges; σ in cells."""
    reach = max(int(np.ceil(3 * sigma)), 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    kernel /= kernel.sum()
    result = values
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(result, width), len(kernel), axis=axis)
        result = np.ascontiguousarray(windows @ kernel)
    return result


def _colours(heat: Heat) -> tuple[Pixels, NDArray[np.bool_]]:
    shown = np.isfinite(heat.values)
    # Of most slides a small part is shown; the rest has the first colour.
    colours = np.empty((*shown.shape, 3), np.uint8)
    colours[:] = _INFERNO[0]
    position = _share(heat, shown) * (len(_INFERNO) - 1)
    lower = np.minimum(position.astype(np.int64), len(_INFERNO) - 2)
    weight = (position - lower)[..., None]
    colours[shown] = np.round(_INFERNO[lower] * (1 - weight) + _INFERNO[lower + 1] * weight).astype(np.uint8)
    return colours, shown


def _share(heat: Heat, shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Where the values that are shown lie between the first colour and the last."""
    share: NDArray[np.float64] = np.clip(heat.values[shown] / heat.top, 0, 1)
    return share


def _blend(picture: Image.Image, heat: Heat, thumbnail_scale: tuple[float, float], strength: float) -> Image.Image:
    colours, shown = _colours(heat)
    opacity = np.zeros(shown.shape, np.uint8)
    opacity[shown] = np.round((_LEAST_OPACITY + (_MOST_OPACITY - _LEAST_OPACITY) * _share(heat, shown)) * strength * 255).astype(np.uint8)
    # The heat's part that the thumbnail shows, in cells: both begin at the slide's corner.
    box = (0.0, 0.0, picture.width * thumbnail_scale[0] / heat.scale[0], picture.height * thumbnail_scale[1] / heat.scale[1])
    box = (0.0, 0.0, min(box[2], shown.shape[1]), min(box[3], shown.shape[0]))
    layer = Image.fromarray(colours, "RGB").resize(picture.size, Image.Resampling.BILINEAR, box=box)
    mask = Image.fromarray(opacity, "L").resize(picture.size, Image.Resampling.BILINEAR, box=box)
    return Image.composite(layer, picture, mask)


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


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
