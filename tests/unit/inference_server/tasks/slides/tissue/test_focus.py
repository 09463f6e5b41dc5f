"""Which blocks are out of focus, whatever the contrast and the resolution."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.tissue.focus import block_edge, blurred_blocks, blurred_tissue
from tests.support.slides.he_fields import Look, paint_field

FIELD = paint_field(Look(blur=0.3, noise=0, jpeg=0), 3, edge=1024, mpp=0.25).pixels


def seen(sigma: float, mpp: float, contrast: float = 1.0) -> NDArray[np.uint8]:
    """The field blurred by σ µm, at a resolution, with the noise of a scanner."""
    light = FIELD.astype(np.float32)
    light = cv2.GaussianBlur(light, (0, 0), sigma / 0.25) if sigma else light
    light = cv2.resize(light, None, fx=0.25 / mpp, fy=0.25 / mpp, interpolation=cv2.INTER_AREA)
    light = 245 * (np.maximum(light, 1) / 245) ** contrast
    return np.clip(np.round(light + np.random.default_rng(1).normal(0, 1, light.shape)), 0, 255).astype(np.uint8)


def share(pixels: NDArray[np.uint8], mpp: float) -> float:
    (blocks,) = blurred_blocks(pixels[None], halo=0, mpp=mpp)
    return float(blurred_tissue(blocks, np.ones_like(blocks)).mean())


# Where a pixel is as large as the fine detail, noise hides what is missing of pale tissue.
@pytest.mark.parametrize(("mpp", "contrast"), [(0.25, 1.0), (0.25, 0.3), (0.5, 1.0), (0.5, 0.3), (1.0, 1.0)])
def test_tissue_in_focus_is_sharp_and_blurred_by_a_micrometre_is_not(mpp: float, contrast: float) -> None:
    assert 0.03 > share(seen(0, mpp, contrast), mpp)
    assert 0.9 < share(seen(1.2, mpp, contrast), mpp)
    assert 0.97 < share(seen(4, mpp, contrast), mpp)


def test_blocks_are_the_same_with_the_pixels_around_them_or_cut_elsewhere() -> None:
    pixels = seen(0.7, 0.5)
    edge = block_edge(0.5)
    (whole,) = blurred_blocks(pixels[None, : 4 * 64 + 44, : 4 * 64 + 44], halo=22, mpp=0.5)
    assert 0 < whole.sum() < whole.size
    for row in range(4):
        for column in range(4):
            tile = pixels[None, 64 * row : 64 * row + 108, 64 * column : 64 * column + 108]
            (part,) = blurred_blocks(tile, halo=22, mpp=0.5)
            count = 64 // edge
            assert whole[count * row :, count * column :][:count, :count].tolist() == part.tolist()


# With a halo around them, and mirrored at their edges; more than are judged at once.
@pytest.mark.parametrize("halo", [22, 3])
def test_tiles_are_judged_together_as_each_by_itself(halo: int) -> None:
    sharp, soft = seen(0, 0.5), seen(2, 0.5)
    corners = [(x, y) for y in range(0, 192, 48) for x in range(0, 192, 24)]
    edge = 256 + 2 * halo
    tiles = np.stack([(soft if index % 3 else sharp)[y : y + edge, x : x + edge] for index, (x, y) in enumerate(corners)])
    alone = [blurred_blocks(tile[None], halo=halo, mpp=0.5)[0].tolist() for tile in tiles]
    assert alone == blurred_blocks(tiles, halo=halo, mpp=0.5).tolist()
    assert 0.1 < np.mean(alone) < 0.9


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_without_a_halo_tiles_are_judged_as_if_they_were_mirrored_at_their_edges(mpp: float) -> None:
    edge, margin = 8 * block_edge(mpp), block_edge(mpp)
    tiles = np.stack([seen(0.7, mpp)[y : y + edge, x : x + edge] for y in (0, 50) for x in (0, 70, 140)])
    around = np.pad(tiles, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    expected = blurred_blocks(around, halo=margin, mpp=mpp)
    assert 0.05 < expected[:, [0, -1], :].mean() < 0.95
    assert expected.tolist() == blurred_blocks(tiles, halo=0, mpp=mpp).tolist()


def test_what_is_smaller_than_a_block_has_none() -> None:
    assert (2, 0, 0) == blurred_blocks(np.zeros((2, 8, 8, 3), np.uint8), halo=0, mpp=0.5).shape


def test_glass_beside_tissue_does_not_make_it_blurred() -> None:
    """More rows than are worked on at once."""
    tissue = np.zeros((300, 40), bool)
    tissue[:, :3] = True
    blurred = ~tissue
    blurred[100:110, :3] = True
    found = blurred_tissue(blurred, tissue)
    assert [[row, column] for row in range(100, 110) for column in range(3)] == np.argwhere(found).tolist()
