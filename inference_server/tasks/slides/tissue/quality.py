"""Pen marks and folds, on the optical densities of cells of about 8 µm.

Stained tissue absorbs green most, and its densities in R, G and B lie between those of its stains (Ruifrok and Johnston 2001). What
lies outside is ink, as HistoQC (Janowczyk 2019, JCO Clin Cancer Inform 3:1) and others look for it by colour: green and light blue ink
absorb red more than green, blue ink next to no blue, black ink all alike, red and pink ink next to no red, yellow and orange ink blue
far more than green. Ink of a colour that stains can have (brown, violet, dark red, navy) is taken for them. A fold is two layers of
tissue; by Beer and Lambert its density is twice that of one. Kothari 2013 (J Pathol Inform 4:22) tells folds in the same way, dark and
saturated at once.
"""

from __future__ import annotations

import numpy as np

from inference_server.tasks.slides.tissue.cells import Mask, grown, majority
from inference_server.tasks.slides.tissue.densities import CellDensities, Densities

# Green ink: density in red over that in green, and least difference, in OD. Haematoxylin has 0.6 to 1.25. Thin green and light blue:
# farther from it, so that less of a difference is enough.
_COOL_RATIO, _COOL_DIFFERENCE = 1.3, 0.08
_LIGHT_RATIO, _LIGHT_DIFFERENCE = 1.5, 0.06
# Blue ink: least density in red, that over green's at least, and blue's over green's at most. Haematoxylin has 0.38 to 0.53 of blue.
_BLUE_DENSITY, _BLUE_RED, _BLUE_BLUE = 0.3, 0.95, 0.3
# Black ink: least mean density, and most spread over the mean; tissue has at least 0.5. Denser than 1.3 OD is no light at all: what
# the scanner left out.
_BLACK_DENSITY, _BLACK_SPREAD, _NO_LIGHT = 0.4, 0.25, 1.3
# Red ink: least density in green; most in red and least in blue over that. Eosin has 0.27 and 0.70, blood 0.13 and 0.79.
_RED_DENSITY, _RED_RED, _RED_BLUE = 0.3, 0.1, 0.75
# Pink ink: least density in green; most in red and least in blue over that. Eosins with so much of blue have 0.09 of red or more.
_PINK_DENSITY, _PINK_RED, _PINK_BLUE = 0.3, 0.05, 0.3
# Yellow and orange ink: density in blue over that in green, and least difference. Eosin has 0.7, DAB 1.36, melanin 1.5.
_WARM_RATIO, _WARM_DIFFERENCE = 1.8, 0.15
# The faint border of a stroke: weaker forms of these.
_FAINT_COOL_DENSITY, _FAINT_BLACK_DENSITY, _FAINT_BLACK_SPREAD = 0.2, 0.3, 0.4
_FAINT_RED_DENSITY, _FAINT_WARM_DIFFERENCE, _FAINT_LIGHT_DIFFERENCE = 0.1, 0.05, 0.04
# A mark is at least so sure, as a share of its cells; the rest is its border.
_LEAST_SURE = 0.2
# Marks are wider than 20 µm, folds than 12 µm.
_PEN_MAJORITY, _FOLD_MAJORITY = 5, 3
# A fold is so many times as dense as the slide's median tissue, and at least so dense, in OD.
FOLD_RATIO, FOLD_DENSITY = 2.0, 0.4


def ink(density: Densities) -> tuple[Mask, Mask]:
    """Where cells have the colour of ink, surely, and like the faint border of a stroke."""
    red, green, blue, mean, spread = density.red, density.green, density.blue, density.mean, density.spread
    cooler, warmer = red - green, blue - green
    lit, light, warm = mean < _NO_LIGHT, red > _LIGHT_RATIO * green, blue > _WARM_RATIO * green
    cool = (red > _COOL_RATIO * green) & (cooler > _COOL_DIFFERENCE)
    azure = (red > _BLUE_DENSITY) & (red > _BLUE_RED * green) & (blue < _BLUE_BLUE * green)
    black = (mean > _BLACK_DENSITY) & lit & (spread < _BLACK_SPREAD * mean)
    scarlet, pink = (red < _RED_RED * green) & (blue > _RED_BLUE * green), (red < _PINK_RED * green) & (blue > _PINK_BLUE * green)
    sure = cool | azure | black | ((green > _RED_DENSITY) & scarlet) | ((green > _PINK_DENSITY) & pink)
    sure |= (light & (cooler > _LIGHT_DIFFERENCE)) | (warm & (warmer > _WARM_DIFFERENCE))
    faint = ((red > green) & (mean > _FAINT_COOL_DENSITY)) | ((mean > _FAINT_BLACK_DENSITY) & lit & (spread < _FAINT_BLACK_SPREAD * mean))
    faint |= (light & (cooler > _FAINT_LIGHT_DIFFERENCE)) | (warm & (warmer > _FAINT_WARM_DIFFERENCE))
    return sure, faint | ((green > _FAINT_RED_DENSITY) & (scarlet | pink))


def pen_marks(surely: Mask, faintly: Mask) -> Mask:
    """Cells with ink on them, on glass or on tissue, from where all cells have its colour as `ink` tells."""
    sure = majority(surely, _PEN_MAJORITY)
    return grown(sure, majority(faintly, _PEN_MAJORITY), _LEAST_SURE) if sure.any() else sure


def folds(density: CellDensities, tissue: Mask) -> Mask:
    """Cells of tissue that lie in more than one layer."""
    if not tissue.any():
        return tissue
    means = np.concatenate(density.where(tissue, lambda each: each.mean))
    dense = np.zeros_like(tissue)
    dense[tissue] = means > max(FOLD_RATIO * float(np.median(means)), FOLD_DENSITY)
    folded = majority(dense, _FOLD_MAJORITY)
    return folded & tissue if folded.any() else folded
