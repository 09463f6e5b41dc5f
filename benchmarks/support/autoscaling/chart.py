"""A chart of lines on two logarithmic axes, drawn with Pillow, which is here anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_COLOURS = ("#1b6ca8", "#c8553d", "#3f8f4f", "#7a4fa3", "#b8860b")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 560, 440, 90, 48, 60, 230
_INK, _GRID = "#222222", "#e4e4e4"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    # Powers of ten at its lower and upper end.
    lowest: int
    highest: int
    # By the name of a line: its points.
    lines: Mapping[str, Sequence[tuple[float, float]]]
    # A line across, and what it is.
    bar: float | None = None
    bar_name: str = ""


def draw(path: Path, panels: Sequence[Panel], *, axis: str, first: int, last: int) -> None:
    """Write a PNG of the panels side by side. `axis`: what goes to the right, from 10^first to 10^last."""
    image = Image.new("RGB", (len(panels) * (_WIDTH + _LEFT) + _GAP, _HEIGHT + _TOP + _BOTTOM), "white")
    canvas = ImageDraw.Draw(image)
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    for index, panel in enumerate(panels):
        _panel(canvas, panel, left=index * (_WIDTH + _LEFT) + _LEFT, axis=axis, first=first, last=last, colours=colours)
    for row, name in enumerate(names):
        place = (len(panels) * (_WIDTH + _LEFT) + 16, _TOP + 24 * row)
        canvas.line([(place[0], place[1] + 8), (place[0] + 22, place[1] + 8)], fill=colours[name], width=3)
        canvas.text((place[0] + 30, place[1]), name, fill=_INK, font=_font(14))
    image.quantize(64).save(path, optimize=True)


def _panel(canvas: ImageDraw.ImageDraw, panel: Panel, *, left: int, axis: str, first: int, last: int, colours: Mapping[str, str]) -> None:
    def place(x: float, y: float) -> tuple[float, float]:
        over = min(max(math.log10(max(y, 10.0**panel.lowest)), panel.lowest), panel.highest) - panel.lowest
        right = (math.log10(x) - first) / (last - first) * (_WIDTH - 24)
        return left + right, _TOP + _HEIGHT - over / (panel.highest - panel.lowest) * _HEIGHT

    canvas.text((left, 14), panel.title, fill=_INK, font=_font(17))
    for power in range(panel.lowest, panel.highest + 1):
        at = place(10.0**first, 10.0**power)[1]
        canvas.line([(left, at), (left + _WIDTH - 24, at)], fill=_GRID)
        canvas.text((left - 8, at), f"{10.0**power:,g}", fill=_INK, font=_font(13), anchor="rm")
    for power in range(first, last + 1):
        at = place(10.0**power, 10.0**panel.lowest)[0]
        canvas.line([(at, _TOP), (at, _TOP + _HEIGHT)], fill=_GRID)
        canvas.text((at, _TOP + _HEIGHT + 8), f"{10**power:,}", fill=_INK, font=_font(13), anchor="ma")
    canvas.text((left + (_WIDTH - 24) / 2, _TOP + _HEIGHT + 32), axis, fill=_INK, font=_font(14), anchor="ma")
    if panel.bar is not None:
        at = place(10.0**first, panel.bar)[1]
        canvas.line([(left, at), (left + _WIDTH - 24, at)], fill="#cc0000", width=2)
        canvas.text((left + 6, at - 4), panel.bar_name, fill="#cc0000", font=_font(13), anchor="lb")
    for name, points in panel.lines.items():
        spots = [place(*point) for point in points]
        canvas.line(spots, fill=colours[name], width=3)
        for x, y in spots:
            canvas.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colours[name])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
