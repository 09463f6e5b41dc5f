"""Colours are brought to the reference's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.kinds import stains
from inference_server.tasks.slides.manifest import StainManifest

Pixels = NDArray[np.uint8]
MACENKO, REINHARD = StainManifest(method="macenko"), StainManifest(method="reinhard")
REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
# Another laboratory's: bluer haematoxylin, redder eosin, and paler.
OTHER = np.array([[0.75, 0.07], [0.61, 0.90], [0.25, 0.42]])


def stained(vectors: NDArray[np.float64], strengths: tuple[float, float], *, seed: int = 1, size: int = 128) -> Pixels:
    """A picture of two stains whose amounts have these 99th percentiles; a part of it is all one stain."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(2.0, 0.2, (size * size, 2))
    amounts[: size * 8, 1] = 0
    amounts[size * 8 : size * 16, 0] = 0
    amounts *= np.array(strengths) / np.percentile(amounts, 99, axis=0)
    return np.clip(np.round(240 * np.exp(-amounts @ vectors.T)), 0, 255).astype(np.uint8).reshape(size, size, 3)


def difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_macenko_turns_another_laboratorys_stains_into_the_references() -> None:
    other, expected = stained(OTHER, (1.2, 0.7)), stained(REFERENCE, (1.9705, 1.0308))
    brought = stains.normaliser(MACENKO, other)(other)
    assert difference(brought, expected) < 0.3 * difference(other, expected)


@pytest.mark.parametrize("seed", range(3))
def test_macenko_does_what_the_paper_says_on_tissue(seed: int) -> None:
    picture = stained(OTHER, (1.2, 0.7), seed=seed)
    density = -np.log((picture.reshape(-1, 3).astype(np.float64) + 1) / 240)
    seen = density[(density >= 0.15).all(axis=1)]
    _, directions = np.linalg.eigh(np.cov(seen.T))
    plane = directions[:, 1:] * np.sign(directions[:, 1:].sum(axis=0))
    angles = np.arctan2(*(seen @ plane).T[::-1])
    ends = [plane @ [np.cos(angle), np.sin(angle)] for angle in np.percentile(angles, (1, 99))]
    found = np.stack(sorted(ends, key=lambda vector: -vector[0]), axis=1)
    amounts = np.linalg.lstsq(found, density.T, rcond=None)[0]
    # Of all but glass: the paper's pictures have none.
    strengths = np.percentile(amounts[:, (density >= 0.15).any(axis=1)], 99, axis=1)
    amounts *= (np.array([1.9705, 1.0308]) / strengths)[:, None]
    expected = np.clip(240 * np.exp(-REFERENCE @ amounts), 0, 255).T.reshape(picture.shape)

    assert np.abs(expected - stains.normaliser(MACENKO, picture)(picture)).max() <= 0.6


def test_macenko_leaves_the_references_own_colours() -> None:
    picture = stained(REFERENCE, (1.9705, 1.0308))
    # Its lightest pixels count as glass, so that it passes for a little darker than it is.
    assert difference(stains.normaliser(MACENKO, picture)(picture), picture) < 4


def test_reinhard_gives_the_references_means_and_deviations() -> None:
    picture = stained(OTHER, (1.2, 0.7))
    brought = stains.normaliser(REINHARD, picture)(picture)
    stained_pixels = (picture < 240 * np.exp(-0.15) - 1).any(axis=2)
    lms = np.log(brought[stained_pixels] @ np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]).T)
    lab = np.stack([lms @ (1, 1, 1) / 3**0.5, lms @ (1, 1, -2) / 6**0.5, lms @ (1, -1, 0) / 2**0.5])
    # But for what a byte cannot hold.
    assert pytest.approx([8.74108109, -0.12440419, 0.0444982], abs=0.05) == lab.mean(axis=1)
    assert pytest.approx([0.6135447, 0.10989545, 0.0286032], rel=0.15) == lab.std(axis=1)


@pytest.mark.parametrize("noise", [1e-9, 0.5, 1.0])
def test_a_sample_of_nearly_one_colour_gives_colours_and_no_overflow(noise: float) -> None:
    random = np.random.default_rng(1)
    sample = np.clip(np.round(np.array((180, 90, 150)) + random.normal(0, noise, (4000, 3))), 0, 255).astype(np.uint8)
    sample[0] += np.array((9, 3, 1), np.uint8)
    pixels = random.integers(0, 256, (500, 3), np.uint8)
    with np.errstate(over="raise", invalid="raise"):
        normalise = stains.normaliser(REINHARD, sample)
        assert normalise is not None
        assert pixels.shape == normalise(pixels).shape


@pytest.mark.parametrize("manifest", [MACENKO, REINHARD])
@pytest.mark.parametrize("grey", [255, 236])
def test_glass_says_nothing_of_stains_and_stays(manifest: StainManifest, grey: int) -> None:
    glass = np.full((64, 64, 3), grey, np.uint8)
    assert np.array_equal(glass, stains.normaliser(manifest, glass)(glass))


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_each_tile_may_be_its_own_sample(method: str) -> None:
    own = stains.normaliser(StainManifest(method=method, estimate="tile"))  # type: ignore[arg-type]
    pale, dark = stained(OTHER, (1.0, 0.6)), stained(OTHER, (2.0, 1.2))
    assert difference(own(pale), own(dark)) < 0.4 * difference(pale, dark)


@pytest.mark.parametrize("manifest", [MACENKO, REINHARD])
def test_a_pixel_comes_out_the_same_in_whatever_piece_it_lies(manifest: StainManifest) -> None:
    picture = stained(OTHER, (1.2, 0.7))
    normalise = stains.normaliser(manifest, picture)
    whole = normalise(picture)
    pieces = [normalise(picture[row : row + 7]) for row in range(0, 128, 7)]
    assert np.array_equal(whole, np.concatenate(pieces))


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_one_stain_alone_is_left_as_it_is(noise: float) -> None:
    amounts = np.linspace(0.3, 2.0, 4096)[:, None]
    shades = 240 * np.exp(-amounts * REFERENCE[:, 0]) + np.random.default_rng(1).normal(0, noise, (4096, 3))
    picture = np.round(shades).clip(0, 255).astype(np.uint8).reshape(64, 64, 3)
    assert np.array_equal(picture, stains.normaliser(MACENKO, picture)(picture))


def test_tissue_comes_out_the_same_however_little_of_the_tile_it_is() -> None:
    tissue = stained(OTHER, (1.2, 0.7))
    whole = stains.normaliser(MACENKO, tissue)(tissue)
    tile = np.full((1024, 128, 3), 240, np.uint8)
    tile[:128] = tissue
    assert difference(stains.normaliser(MACENKO, tile)(tile)[:128], whole) < 2
