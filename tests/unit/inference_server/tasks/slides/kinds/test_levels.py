"""A level looked up is the level normalised, to the last bit, in every type and layout."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from inference_server.errors import ConfigurationError
from inference_server.tasks.slides.kinds.levels import Levels
from inference_server.tasks.slides.manifest import TileClassifierManifest

MANIFEST = TileClassifierManifest(
    mpp=0.5, tile_size=224, classes=("glass", "tissue"), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def whole(mean: float) -> TileClassifierManifest:
    """Whole numbers: pixels less a mean."""
    return TileClassifierManifest(mpp=0.5, tile_size=224, classes=("glass", "tissue"), scale=1, mean=(mean, mean, mean))


# Every level in every channel, each with others beside it.
TILES = np.random.default_rng(1).permuted(np.tile(np.arange(256, dtype=np.uint8), 12)).reshape(2, 16, 32, 3)


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize(
    ("dtype", "manifest"),
    [
        *((dtype, MANIFEST) for dtype in (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)),
        (np.int32, whole(mean=0)),
        (np.int64, whole(mean=255)),
        (np.int8, whole(mean=128)),
    ],
)
def test_levels_are_normalised_as_the_manifest_says(dtype: type, manifest: TileClassifierManifest, *, planes: bool) -> None:
    scaled = TILES.astype(np.float32) * np.float32(manifest.scale)
    expected = ((scaled - np.array(manifest.mean, np.float32)) / np.array(manifest.std, np.float32)).astype(dtype)
    actual = Levels(manifest, np.dtype(dtype), model="m").of(TILES, planes=planes)
    assert (np.dtype(dtype), True) == (actual.dtype, actual.flags.c_contiguous)
    np.testing.assert_array_equal(np.moveaxis(expected, -1, 1) if planes else expected, actual)


def test_no_tiles_are_no_values() -> None:
    assert (0, 3, 8, 8) == Levels(MANIFEST, np.dtype(np.float32), model="m").of(np.empty((0, 8, 8, 3), np.uint8), planes=True).shape


@pytest.mark.parametrize(
    ("dtype", "manifest"),
    [
        (np.int64, MANIFEST),
        (np.int8, whole(mean=0)),
        (np.float16, MANIFEST.model_copy(update={"scale": 1e6})),
        (np.float32, MANIFEST.model_copy(update={"std": (1e-38, 1, 1), "scale": 1e3})),
        (np.float32, MANIFEST.model_copy(update={"mean": (float("nan"), 0, 0)})),
    ],
)
def test_levels_that_a_type_does_not_hold_are_refused(dtype: type, manifest: TileClassifierManifest) -> None:
    with pytest.raises(ConfigurationError, match=rf"m takes {np.dtype(dtype).name}, which does not hold pixels as scale, mean and std"):
        Levels(manifest, np.dtype(dtype), model="m")
