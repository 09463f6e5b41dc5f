"""Nuclei of H&E fields as HistomicsTK's own example finds them: python histomicstk_nuclei.py FIELDS.npz CENTRES.npz.

Colour deconvolution with its default vectors, a threshold, then the Laplacians of Al-Kofahi 2010 between two radii. Fields have 0.25 µm/px.
"""

from __future__ import annotations

import sys

import numpy as np
from histomicstk.preprocessing.color_deconvolution import color_deconvolution, stain_color_map
from histomicstk.segmentation.nuclear import detect_nuclei_kofahi
from skimage.filters import threshold_otsu
from skimage.measure import regionprops

# The example's: pixels at 0.25 µm.
MIN_RADIUS, MAX_RADIUS, MIN_AREA, SEARCH_RADIUS = 10, 15, 80, 10


def centres(pixels: np.ndarray) -> np.ndarray:
    """Count × (x, y)."""
    stains = np.array([stain_color_map["hematoxylin"], stain_color_map["eosin"], stain_color_map["null"]]).T
    haematoxylin = color_deconvolution(pixels, stains).Stains[:, :, 0]
    foreground = haematoxylin < threshold_otsu(haematoxylin)
    labels = detect_nuclei_kofahi(haematoxylin, foreground, MIN_RADIUS, MAX_RADIUS, MIN_AREA, SEARCH_RADIUS)
    return np.array([region.centroid[::-1] for region in regionprops(labels.astype(int))]).reshape(-1, 2)


if __name__ == "__main__":
    fields = np.load(sys.argv[1])
    np.savez(sys.argv[2], **{name: centres(fields[name]) for name in fields.files})
