"""Outputs of a network that are no vector a tile, or no classes by pixel, and what is told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.kinds.embedder import TileEmbedder
from inference_server.tasks.slides.kinds.segmenter import TileSegmenter
from inference_server.tasks.slides.manifest import EmbedderManifest, SegmenterManifest


def facts(*output: int) -> ModelFacts:
    specs = [TensorSpec(name=name, dtype=np.dtype(np.float32), shape=shape) for name, shape in (("image", (-1,) * 4), ("out", output))]
    return ModelFacts(
        name="net", version="1", engine="", inputs=(specs[0],), outputs=(specs[1],), max_batch_size=8, sha256="", parameters={}
    )


def embedder(*output: int, **told: Any) -> TileEmbedder:
    return TileEmbedder(manifest=EmbedderManifest(kind="embedder", mpp=1.0, tile_size=64, **told), facts=facts(*output))


def segmenter(**told: Any) -> TileSegmenter:
    manifest = SegmenterManifest(kind="segmenter", mpp=1.0, tile_size=64, classes=("glass", "pink", "dark"), **told)
    return TileSegmenter(manifest=manifest, facts=facts(-1, -1, -1, -1))


@pytest.mark.parametrize("shape", [(-1, 50, 384), (50, 50, 384), (-1, 512, 7, 7)])
def test_tokens_or_planes_are_no_vector_unless_the_manifest_says_so(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"more than a vector a tile. Export it with .* the first \(class\) token or the mean"):
        embedder(*shape)
    values = int(np.prod(shape[1:]))
    assert values == embedder(*shape, features=values).features


@pytest.mark.parametrize("shape", [(-1, 384), (-1, 384, 1, 1), (-1, 1, 384)])
def test_a_vector_may_have_sides_of_one(shape: tuple[int, ...]) -> None:
    assert 384 == embedder(*shape).features


def test_a_vector_of_untold_length_needs_features_and_what_comes_is_told_by_its_shape() -> None:
    with pytest.raises(ConfigurationError, match=r"does not tell how long a tile's vector is; say it as features"):
        embedder(-1, -1)
    tokens = {"out": np.zeros((2, 50, 384), np.float32)}
    with pytest.raises(ConfigurationError, match=r"net puts out \[50, 384\] a tile; a vector of 384 was expected"):
        embedder(-1, -1, -1, features=384).vectors(tokens, 2)


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        ("NCHW", (64, 64, 3), [3, 64, 64]),
        ("NHWC", (3, 64, 64), [64, 64, 3]),
        ("NCHW", (64, 64), [3, 64, 64]),
        ("NCHW", (3, 56, 56), [3, 64, 64]),
    ],
)
def test_the_shape_that_a_segmenter_should_put_out_is_told_as_it_would_have_it(
    layout: str, shape: tuple[int, ...], expected: list[int]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        segmenter(layout=layout).labels({"out": np.zeros((2, *shape), np.float32)}, 2)
    assert f"net puts out {list(shape)} a tile; {expected} were expected" in str(refused.value)


def test_another_number_of_classes_is_told_as_such() -> None:
    with pytest.raises(ConfigurationError, match=r"net puts out 4 values a pixel, and slide\.json names 3 classes"):
        segmenter().labels({"out": np.zeros((2, 4, 64, 64), np.float32)}, 2)
