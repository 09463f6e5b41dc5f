"""Micrometres per pixel: what files tell, and what is sane."""

from __future__ import annotations

import html
import math
import re

from inference_server.errors import InvalidInput, InvalidSlide
from inference_server.tasks.slides.values import SlideFacts

# In micrometres.
INCH, CENTIMETRE = 25400.0, 1e4
# Beyond this a "resolution" is that of a printed page (72 dpi are 353 µm), not of a scanner.
_MOST_MPP = 100.0
# A density in pixels per inch or centimetre is a printer's beyond this (300 dpi are 85 µm, 1,200 dpi 21): programs that export pictures
# write it, whatever the microscope was. An objective of 1× has 10.
_MOST_FROM_DENSITY = 20.0
# Light shows nothing so small; a tile of an analysis would take an absurd number of such pixels.
_LEAST_MPP = 0.05
# A slide may be enlarged so many times to the resolution of an analysis.
_MOST_ENLARGEMENT = 4.0
_OME_SIZE = re.compile(r"""\bPhysicalSize([XY])\s*=\s*["']([0-9.eE+-]+)["']""")
_OME_UNIT = re.compile(r"""\bPhysicalSize([XY])Unit\s*=\s*["']([^"']+)["']""")
# ImageJ tells its unit of length in the description, µ as Java writes it: `unit=\\u00B5m`.
_IMAGEJ = "ImageJ="
# What follows a unit on its line is cut off afterwards: an expression that did would take minutes of a line of spaces.
_IMAGEJ_UNIT = re.compile(r"^(y?unit)=(.*)$", re.MULTILINE)
_IMAGEJ_MICROMETRES = {"µm": 1.0, "um": 1.0, "µ": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}
_OME_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": CENTIMETRE, "m": 1e6, "in": INCH, "Å": 1e-4}


def sane(mpp: float | None) -> float | None:
    """The value when it can be a scanner's: 0.05 to 100."""
    return mpp if mpp is not None and _LEAST_MPP <= mpp <= _MOST_MPP else None


def sane_pair(mpp_x: float | None, mpp_y: float | None) -> tuple[float | None, float | None]:
    """Both values when either is sane; one stands in for the other."""
    mpp_x, mpp_y = sane(mpp_x), sane(mpp_y)
    return (mpp_x or mpp_y), (mpp_y or mpp_x)


def from_density(per_unit: float | None, unit_micrometres: float | None) -> float | None:
    """From pixels per unit of length; None for a printed page's."""
    mpp = unit_micrometres / per_unit if per_unit and unit_micrometres else None
    return mpp if mpp is not None and mpp <= _MOST_FROM_DENSITY else None


def from_aperio(description: str, key: str) -> float | None:
    """A number of Aperio's `| key = value` description; mpp is under MPP, magnification under AppMag.

    Some scanners write it with the decimal comma of their country, which OpenSlide takes too.
    """
    found = re.search(rf"\|\s*{key}\s*=\s*([0-9.,eE+-]+)", description)
    return _number(found[1].replace(",", ".")) if found else None


def from_ome(pixels: str) -> tuple[float | None, float | None]:
    """From PhysicalSizeX and Y of an image's Pixels element of OME-XML; micrometres unless the unit says otherwise."""
    units = {axis: _OME_MICROMETRES.get(html.unescape(unit), 0.0) for axis, unit in _OME_UNIT.findall(pixels)}
    sizes = {axis: _number(size) for axis, size in _OME_SIZE.findall(pixels)}
    values = [None if (size := sizes.get(axis)) is None else size * units.get(axis, 1.0) for axis in "XY"]
    return values[0], values[1]


def from_imagej(
    description: str, per_unit_x: float | None, per_unit_y: float | None, tagged: float | None
) -> tuple[float | None, float | None] | None:
    """From the tags of a TIFF whose description tells a unit of length as ImageJ does; None where it tells none.

    Nor an inch or a centimetre, which the tags tell too. `tagged`: micrometres of the unit that these tell.
    """
    found = _IMAGEJ_UNIT.findall(description) if description.startswith(_IMAGEJ) else []
    units = {name: unit.rstrip() for name, unit in found}
    unit = _imagej_micrometres(units.get("unit", ""))
    # As ImageJ has it: the tags are by the centimetre, and what they come to is told in micrometres.
    if unit is None or (units["unit"] == "um" and tagged == CENTIMETRE):
        return None
    unit_y = _imagej_micrometres(units["yunit"]) if "yunit" in units else unit
    pairs = ((unit, per_unit_x), (unit_y, per_unit_y))
    return sane_pair(*(length / count if length and count else None for length, count in pairs))


def _imagej_micrometres(unit: str) -> float | None:
    return _IMAGEJ_MICROMETRES.get(unit.replace("\\u00B5", "µ").replace("\u03bc", "µ"))


def effective(facts: SlideFacts, requested: float | None, assumed: float | None = None) -> tuple[float, float]:
    """Micrometres per pixel of level 0 along x and y. Raises `InvalidInput` for an absurd request, `InvalidSlide` when nobody tells.

    `requested` comes before what the slide tells, `assumed` after it.
    """
    for name, given in (("mpp", requested), ("assumed_mpp", assumed)):
        if given is not None and sane(given) is None:
            raise InvalidInput(f"{name} is {given}; expected micrometres per pixel of level 0, {_LEAST_MPP:g} to {_MOST_MPP:g}.")
    if requested is not None:
        return requested, requested
    if facts.mpp_x is None or facts.mpp_y is None:
        if assumed is not None:
            return assumed, assumed
        raise InvalidSlide(
            f"{facts.uri} does not tell its resolution (micrometres per pixel), and without it nothing on it has a size. "
            "Pass mpp in the request: about 0.25 for a 40× scan, 0.5 for 20×."
        )
    return facts.mpp_x, facts.mpp_y


def check_fine_enough(facts: SlideFacts, mpp: tuple[float, float], *, wanted: float, analysis: str) -> None:
    """Raise `InvalidSlide` when a slide is so much coarser than an analysis wants that it could not see anything."""
    most = wanted * _MOST_ENLARGEMENT
    if max(mpp) > most:
        raise InvalidSlide(
            f"{facts.uri} has {max(mpp):g} µm/px at its finest; {analysis} works at {wanted:g} and needs {most:g} or finer. "
            "If the file tells a wrong resolution, pass mpp in the request."
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def ratio(whole: int, part: int) -> float:
    """Level-0 pixels per pixel: the whole number that was meant, where rounding of the size explains the rest; small levels fit several.

    Of these a power of two: writers halve, and of 100,000 px rounded down at each turn are left 195 px of 512, which 513 fits better.
    """
    halvings = max(round(math.log2(whole / part)), 0)
    for meant in (2**halvings, round(whole / part)):
        if meant > 0 and part in (whole // meant, -(-whole // meant)):
            return float(meant)
    return whole / part
