"""Fields of H&E painted with nuclei at known places, as unlike from one to the next as laboratories make them.

Nuclei are ellipses of 5 to 12 µm with textured chromatin, some vesicular, some pale, many touching, some cut by the field's edge. They lie
in fibrous eosin with vacuoles, blood and debris. What a scanner does follows: its optics, its noise, JPEG.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float64]

# Haematoxylin and eosin as laboratories have published them: optical densities in R, G, B.
STAINS = {
    "QuPath": ((0.651, 0.701, 0.290), (0.216, 0.801, 0.558)),
    "Ruifrok": ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105)),
    "Macenko": ((0.563, 0.720, 0.406), (0.216, 0.801, 0.558)),
    "bluish": ((0.750, 0.600, 0.250), (0.250, 0.850, 0.450)),
    "reddish": ((0.450, 0.800, 0.400), (0.150, 0.800, 0.580)),
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a field was cut, stained and scanned."""

    stain: str = "QuPath"
    # Nuclei in 128 × 128 µm.
    nuclei: int = 130
    # Median diameter in µm.
    diameter: float = 6.5
    # Of usual densities.
    haematoxylin: float = 1.0
    eosin: float = 1.0
    # Grey levels of glass in R, G, B.
    white: tuple[int, int, int] = (245, 244, 243)
    # σ of the optics in µm, and of the noise in grey levels.
    blur: float = 0.3
    noise: float = 2.5
    # 0 for none.
    jpeg: int = 80


@dataclass(frozen=True, kw_only=True)
class Field:
    """A painted field."""

    # Rows × columns × RGB.
    pixels: NDArray[np.uint8]
    # Count × (x, y) of the nuclei's centres, in pixels.
    centres: NDArray[np.float64] = field(repr=False)


def paint_field(look: Look, seed: int, *, edge: int = 512, mpp: float = 0.25) -> Field:
    """A square field; the same for the same arguments."""
    random = np.random.default_rng(seed)
    haematoxylin = 0.07 + 0.03 * _texture(random, edge, 1.5 / mpp)
    eosin = np.maximum(0.32 + 0.08 * _fibres(random, edge, mpp) + 0.05 * _texture(random, edge, 20 / mpp), 0.02)
    _vacuoles(random, eosin, haematoxylin, mpp)
    centres = _nuclei(random, haematoxylin, eosin, look, mpp)
    _debris(random, haematoxylin, mpp)
    _blood(random, eosin, mpp)
    return Field(pixels=_scanned(random, haematoxylin * look.haematoxylin, eosin * look.eosin, look, mpp), centres=centres)


def _scanned(random: np.random.Generator, haematoxylin: Plane, eosin: Plane, look: Look, mpp: float) -> NDArray[np.uint8]:
    vectors = [np.array(vector) / np.linalg.norm(vector) for vector in STAINS[look.stain]]
    light = np.array(look.white) * 10.0 ** -(haematoxylin[..., None] * vectors[0] + eosin[..., None] * vectors[1])
    light = cv2.GaussianBlur(light, (0, 0), look.blur / mpp) + random.normal(0, look.noise, light.shape)
    pixels: NDArray[np.uint8] = np.clip(np.round(light), 0, 255).astype(np.uint8)
    if not look.jpeg:
        return pixels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=look.jpeg)
    decoded: NDArray[np.uint8] = np.asarray(Image.open(buffer).convert("RGB"))
    return decoded


def _texture(random: np.random.Generator, edge: int, sigma: float) -> Plane:
    """Noise of mean 0 and deviation 1 that is smooth over σ pixels."""
    noise = cv2.GaussianBlur(random.normal(size=(edge, edge)), (0, 0), sigma)
    values: Plane = (noise - noise.mean()) / max(float(noise.std()), 1e-9)
    return values


def _fibres(random: np.random.Generator, edge: int, mpp: float) -> Plane:
    """Strands of some µm, in a direction that turns slowly."""
    fields = []
    for sigmas in ((8 / mpp, 0.8 / mpp), (0.8 / mpp, 8 / mpp)):
        noise = cv2.GaussianBlur(random.normal(size=(edge, edge)), (0, 0), sigmaX=sigmas[0], sigmaY=sigmas[1])
        fields.append(noise / noise.std())
    share = 1 / (1 + np.exp(-2 * _texture(random, edge, 25 / mpp)))
    strands: Plane = share * fields[0] + (1 - share) * fields[1]
    return strands


def _ellipse(edge: int, x: float, y: float, radii: tuple[float, float], angle: float) -> tuple[tuple[slice, slice], Plane]:
    """The window of an ellipse, and each pixel's distance from the centre in radii."""
    reach = int(1.6 * max(radii)) + 2
    rows = slice(max(int(y) - reach, 0), min(int(y) + reach + 1, edge))
    columns = slice(max(int(x) - reach, 0), min(int(x) + reach + 1, edge))
    down, across = np.mgrid[rows, columns] + 0.5 - np.array([y, x])[:, None, None]
    along = np.cos(angle) * across + np.sin(angle) * down
    beside = np.cos(angle) * down - np.sin(angle) * across
    distance: Plane = np.hypot(along / radii[0], beside / radii[1])
    return (rows, columns), distance


def _nuclei(random: np.random.Generator, haematoxylin: Plane, eosin: Plane, look: Look, mpp: float) -> NDArray[np.float64]:
    edge = len(haematoxylin)
    wanted = round(look.nuclei * (edge * mpp / 128) ** 2)
    chromatin = _texture(random, edge, 0.5 / mpp)
    placed: list[tuple[float, float, float]] = []
    for _ in range(wanted * 40):
        if len(placed) == wanted:
            break
        diameter = float(np.clip(random.lognormal(np.log(look.diameter), 0.2), 0.65 * look.diameter, 1.7 * look.diameter)) / mpp
        ratio = random.uniform(1.0, 1.8)
        radii = diameter / 2 * ratio**0.5, diameter / 2 / ratio**0.5
        # Half of them near another, as they lie in glands and clusters; they may touch, and overlap a little.
        x, y = random.uniform(0, edge, 2)
        if placed and random.random() < 0.5:
            near = placed[random.integers(len(placed))]
            turn, apart = random.uniform(0, 2 * np.pi), random.uniform(0.95, 1.3) * (near[2] + diameter / 2)
            x, y = near[0] + apart * np.cos(turn), near[1] + apart * np.sin(turn)
        if not (0 <= x < edge and 0 <= y < edge) or any(np.hypot(x - a, y - b) < 0.92 * (r + diameter / 2) for a, b, r in placed):
            continue
        placed.append((float(x), float(y), diameter / 2))
        _one(random, haematoxylin, eosin, chromatin, (x, y, radii))
    return np.array([place[:2] for place in placed]).reshape(-1, 2)


def _one(
    random: np.random.Generator, haematoxylin: Plane, eosin: Plane, chromatin: Plane, shape: tuple[float, float, tuple[float, float]]
) -> None:
    x, y, radii = shape
    window, distance = _ellipse(len(haematoxylin), x, y, radii, random.uniform(0, np.pi))
    inside = 1 / (1 + np.exp(14 * (distance - 1)))
    strength = float(np.clip(random.normal(0.62, 0.16), 0.25, 1.0)) * (0.5 if random.random() < 0.12 else 1.0)
    # Vesicular nuclei have a rim and a pale centre.
    body = 0.55 + 0.6 * np.clip(distance, 0, 1) ** 3 if random.random() < 0.2 else 1.0
    haematoxylin[window] += strength * inside * body * np.clip(1 + 0.22 * chromatin[window], 0.3, 1.8)
    eosin[window] *= 1 - 0.5 * inside


def _vacuoles(random: np.random.Generator, eosin: Plane, haematoxylin: Plane, mpp: float) -> None:
    edge = len(eosin)
    for _ in range(random.integers(2, 9)):
        radius = random.uniform(2, 7) / mpp
        x, y = random.uniform(0, edge, 2)
        window, distance = _ellipse(edge, x, y, (radius, radius * random.uniform(0.7, 1)), random.uniform(0, np.pi))
        empty = 1 / (1 + np.exp(12 * (distance - 1)))
        eosin[window] *= 1 - 0.92 * empty
        haematoxylin[window] *= 1 - 0.92 * empty


def _debris(random: np.random.Generator, haematoxylin: Plane, mpp: float) -> None:
    """Dark specks of about a µm, which are no nuclei."""
    edge = len(haematoxylin)
    for _ in range(random.integers(5, 20)):
        radius = random.uniform(0.4, 0.8) / mpp
        x, y = random.uniform(0, edge, 2)
        window, distance = _ellipse(edge, x, y, (radius, radius), 0.0)
        haematoxylin[window] += 0.5 / (1 + np.exp(8 * (distance - 1)))


def _blood(random: np.random.Generator, eosin: Plane, mpp: float) -> None:
    """Red cells: round, 6 to 7 µm, of eosin alone."""
    edge = len(eosin)
    for _ in range(random.integers(0, 12)):
        radius = random.uniform(3, 3.6) / mpp
        x, y = random.uniform(0, edge, 2)
        window, distance = _ellipse(edge, x, y, (radius, radius), 0.0)
        eosin[window] = np.maximum(eosin[window], 0.7 / (1 + np.exp(14 * (distance - 1))))
