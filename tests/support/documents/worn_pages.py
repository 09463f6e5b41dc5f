"""What happens to a page between the printer and the server: its resolution, turns, skew, blur, noise, fax and JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pypdfium2
from PIL import Image, ImageDraw, ImageFilter

from tests.support.documents.composed_pages import ComposedPage
from tests.support.documents.pdf import pdf

# How high a page lies from its left edge, at 0, to its right edge, at 1; 1 between its highest and its lowest place. It rises in its
# middle, towards the back of a book at its left, or rises and sinks.
SHAPES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "arch": lambda x: np.sin(np.pi * x) - 0.5,
    "book": lambda x: (1 - x) ** 4 - 0.5,
    "wave": lambda x: np.sin(2 * np.pi * x) / 2,
}


@dataclass(frozen=True, kw_only=True)
class Wear:
    """How a page was scanned."""

    dpi: int = 150
    # Quarter turns clockwise from upright.
    quarter_turns: int = 0
    # Clockwise.
    skew_degrees: float = 0.0
    # How far the page rises where it rises the most, over where it lies lowest, as a share of its height.
    curve: float = 0.0
    # How it bends from left to right: one of `SHAPES`.
    shape: str = "arch"
    # How much shorter its right edge is, as a photograph from the left shows it, as a share of its height.
    aside: float = 0.0
    # Standard deviation of the blur, in pixels.
    blur: float = 0.0
    # Standard deviation of the noise, in grey levels of 255.
    noise: float = 0.0
    # Black and white only, as a fax.
    is_fax: bool = False
    # Resolution at which an archive scanned it, black and white with specks and broken strokes, before it was shrunk to `dpi`; 0 for none.
    archive_dpi: int = 0
    # Specks of 2 to 5 pixels that the archive's copy has.
    specks: int = 0
    # Quality of JPEG; 0 for none.
    jpeg: int = 0


def scanned(page: ComposedPage, wear: Wear, seed: int = 0) -> Image.Image:
    """The page as a grey picture, in RGB."""
    scale = (wear.archive_dpi or wear.dpi) / 72
    document = pypdfium2.PdfDocument(pdf([page.texts], size=page.size))
    image = document[0].render(scale=scale).to_pil().convert("L")
    document.close()
    draw = ImageDraw.Draw(image)
    for rule in page.rules:
        draw.line([scale * place for place in rule], fill=60, width=max(1, round(scale / 2)))
    if wear.skew_degrees:
        image = image.rotate(-wear.skew_degrees, expand=True, fillcolor=255, resample=Image.Resampling.BICUBIC)
    if wear.curve or wear.aside:
        image = _photographed(image, wear)
    if wear.blur:
        image = image.filter(ImageFilter.GaussianBlur(wear.blur))
    if wear.noise:
        noise = np.random.default_rng(seed).normal(0, wear.noise, (image.height, image.width))
        image = Image.fromarray((np.asarray(image, np.float32) + noise).clip(0, 255).astype(np.uint8))
    if wear.is_fax:
        image = image.point(lambda level: 255 if level > 150 else 0)
    if wear.archive_dpi:
        image = _archived(image, wear, seed)
    image = image.rotate(-90 * wear.quarter_turns, expand=True)
    if wear.jpeg:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=wear.jpeg)
        image = Image.open(io.BytesIO(out.getvalue()))
    return image.convert("RGB")


def _archived(image: Image.Image, wear: Wear, seed: int) -> Image.Image:
    """Copied in black and white by an uneven threshold, with specks in clouds, then shrunk, which makes it grey again."""
    draw = np.random.default_rng(seed)
    height, width = image.height, image.width

    def grain(sigma: float) -> np.ndarray:
        fine = cv2.GaussianBlur(draw.normal(0, 1, (height, width)).astype(np.float32), (0, 0), sigma)
        return fine / fine.std()

    def clouds(size: int) -> np.ndarray:
        coarse = draw.normal(0, 1, (height // size + 2, width // size + 2)).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    blurred = cv2.GaussianBlur(np.asarray(image, np.float32), (0, 0), wear.archive_dpi / 340)
    is_paper = blurred > draw.uniform(115, 165) + 18 * clouds(60) + 28 * grain(0.8)
    is_paper &= grain(0.7) < 3.45 - 0.35 * clouds(200)
    for x, y, side in zip(*(draw.integers(0, most, wear.specks) for most in (width, height, 1000)), strict=True):
        length = 2 + (side > 690) + 2 * (side > 944)
        is_paper[y : y + length, x : x + length] = False
    size = (round(width * wear.dpi / wear.archive_dpi), round(height * wear.dpi / wear.archive_dpi))
    return Image.fromarray(cv2.resize(np.where(is_paper, 255, 0).astype(np.uint8), size, interpolation=cv2.INTER_AREA))


def _photographed(image: Image.Image, wear: Wear) -> Image.Image:
    """Curved, then seen from the side."""
    width, height = image.size
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    risen = y + height * wear.curve * SHAPES[wear.shape](x / width).astype(np.float32)
    curved = cv2.remap(np.asarray(image), x, risen, cv2.INTER_LINEAR, borderValue=(255, 255, 255))
    seen = np.array([(0, 0), (width, height * wear.aside), (width, height * (1 - wear.aside)), (0, height)], np.float32)
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    turned = cv2.warpPerspective(curved, cv2.getPerspectiveTransform(flat, seen), (width, height), borderValue=(255, 255, 255))
    return Image.fromarray(turned)
