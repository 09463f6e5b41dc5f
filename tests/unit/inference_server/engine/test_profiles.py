"""Optimisation profiles: how they are written, whether they fit, and which one holds a shape."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.engine.tensorrt.profiles import (
    check_profile,
    fitting,
    likely_profile,
    provider_shapes,
    read_profile,
    read_provider_shapes,
    written,
)
from inference_server.errors import ConfigurationError

IMAGE = TensorSpec(name="image", dtype=np.dtype(np.float32), shape=(-1, 3, -1, -1))
TEXT = "image=1x3x64x64:8x3x224x224:32x3x448x448"


def test_a_profile_reads_as_it_is_written() -> None:
    assert TEXT == written(read_profile(TEXT))
    two = "a=1:2:4,b=1x8:2x8:4x8"
    assert two == written(read_profile(" a=1:2:4 , b=1x8:2x8:4x8"))


@pytest.mark.parametrize("text", ["", "image", "image=1x3", "image=1:2", "image=1x3:1x3x4:1x3", "image=4:2:8", "image=1:2:x", "=1:2:3"])
def test_what_is_no_profile_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected INPUT=MIN:OPT:MAX, such as"):
        read_profile(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("picture=1x3x64x64:1x3x64x64:1x3x64x64", "names the inputs picture; the model has image"),
        ("image=1x3x64:1x3x64:1x3x64", r"gives image the shapes 1x3x64:1x3x64:1x3x64; the model's file has \[-1, 3, -1, -1\]"),
        ("image=1x1x64x64:1x3x64x64:1x3x64x64", "the model's file has"),
    ],
)
def test_a_profile_that_does_not_fit_the_model_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_profile(read_profile(text), [IMAGE])


def test_a_likely_profile_goes_from_one_row_to_the_largest_batch_around_the_sizes_to_warm_up_on() -> None:
    profile = likely_profile([IMAGE], rows=16, shapes={"image": (3, 320, 640)})
    assert "image=1x3x80x160:16x3x320x640:16x3x1280x2560" == written(profile)
    check_profile(profile, [IMAGE])


def test_the_tightest_profile_that_holds_a_shape_is_found() -> None:
    profiles = [read_profile("x=1x1:8x256:32x512"), read_profile("x=1x1:8x32:32x64")]
    shapes = ((4, 64), (4, 65), (33, 1))
    assert [1, 0, None] == [fitting(profiles, {"x": shape}) for shape in shapes]


def test_the_words_of_onnx_runtimes_provider_say_the_same() -> None:
    profiles = (read_profile("a=1x8:2x8:4x8,b=1:2:4"), read_profile("a=1x9:2x9:4x9,b=1:2:5"))
    words = provider_shapes(profiles)
    assert "a:1x8,b:1,a:1x9,b:1" == words["trt_profile_min_shapes"]
    assert list(map(written, profiles)) == list(map(written, read_provider_shapes(words)))
    assert () == read_provider_shapes({})
    with pytest.raises(ConfigurationError, match="must name the same inputs, each equally often"):
        read_provider_shapes(words | {"trt_profile_max_shapes": "a:4x8"})
