"""What tile models have in common."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.kinds.tile_model import TileModel, class_probabilities, output_of
from inference_server.tasks.slides.manifest import Classes, TileClassifierManifest


def model_of(dtype: type, layout: Literal["NCHW", "NHWC"] = "NCHW", **manifest: Any) -> TileModel:
    """A model that takes tiles of a type."""
    image, logits = (TensorSpec(name=name, dtype=np.dtype(kind), shape=(-1,)) for name, kind in (("image", dtype), ("logits", np.float32)))
    facts = ModelFacts(
        name="tumour", version="1", engine="", inputs=(image,), outputs=(logits,), max_batch_size=8, sha256="", parameters={}
    )
    told: dict[str, Any] = {"mpp": 1.0, "tile_size": 64, "classes": ("glass", "tumour"), "layout": layout} | manifest
    return TileModel(manifest=TileClassifierManifest(**told), facts=facts)


@pytest.mark.parametrize(("size", "overlap"), [(224, 0), (227, 0), (331, 0), (256, 2), (512, 0), (16, 0), (4093, 0)])
@pytest.mark.parametrize("mpp", [0.25, 0.46, 0.5, 1.0, 4.0])
def test_a_cell_of_the_tissue_mask_is_about_8_micrometres_whatever_the_tile(size: int, overlap: int, mpp: float) -> None:
    cell = model_of(np.uint8, mpp=mpp, tile_size=size, overlap=overlap).plan().cell
    assert 5.3 <= cell * mpp <= 10.7


@pytest.mark.parametrize("step", [1, 3, 4, 7])
def test_a_cell_of_the_tissue_mask_holds_whole_pixels_of_a_coarser_output(step: int) -> None:
    assert (0, True) == ((cell := model_of(np.uint8, mpp=0.5).plan(step=step).cell) % step, 5 <= cell * 0.5 <= 10.7)


def test_a_model_of_bytes_takes_the_pixels_as_they_are() -> None:
    tiles = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    assert tiles is model_of(np.uint8, layout="NHWC").inputs(tiles)["image"]
    np.testing.assert_array_equal(np.moveaxis(tiles, -1, 1), model_of(np.uint8, layout="NCHW").inputs(tiles)["image"])


def test_a_model_that_takes_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tumour takes text as image; a model of tiles takes numbers"):
        model_of(object)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_is_the_models_fault_and_names_it(value: float) -> None:
    with pytest.raises(ConfigurationError, match="tumour puts out values of logits that are no finite numbers"):
        output_of({"logits": np.array([[0.5, value]], np.float32)}, "logits", "tumour")


def test_sound_outputs_are_taken_as_they_are() -> None:
    for values in (np.array([[0.5, 2.0]], np.float16), np.array([[1, 2]], np.int64)):
        assert values is output_of({"logits": values}, "logits", "tumour")


@pytest.mark.parametrize("axis", [0, 1])
def test_one_value_is_that_of_the_second_of_two_classes_along_any_axis(axis: int) -> None:
    two = Classes(classes=("glass", "tumour"), activation="sigmoid")
    values = np.moveaxis(np.array([[0.0, 40.0, -40.0]]), 0, axis)
    found = np.moveaxis(class_probabilities(values, two, axis=axis, model="m", unit="pixel"), axis, 0)
    np.testing.assert_allclose([[0.5, 0, 1], [0.5, 1, 0]], found, atol=1e-9)


def test_other_numbers_of_values_than_of_classes_are_refused() -> None:
    three = Classes(classes=("a", "b", "c"))
    with pytest.raises(ConfigurationError, match=r"m puts out 2 values a pixel, and slide\.json names 3 classes"):
        class_probabilities(np.zeros((4, 2)), three, axis=1, model="m", unit="pixel")
