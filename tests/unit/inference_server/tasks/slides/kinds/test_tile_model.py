"""What tile models have in common."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.engine.port import TensorSpec
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.kinds.tile_model import TileModel, activated, class_probabilities, doubt, output_of
from inference_server.tasks.slides.manifest import Classes, TileClassifierManifest


def model_of(dtype: type, layout: Literal["NCHW", "NHWC"] = "NCHW", shape: tuple[int, ...] = (), **manifest: Any) -> TileModel:
    """A model that takes tiles of a type."""
    image = TensorSpec(name="image", dtype=np.dtype(dtype), shape=shape or ((-1, 3, -1, -1) if layout == "NCHW" else (-1, -1, -1, 3)))
    logits = TensorSpec(name="logits", dtype=np.dtype(np.float32), shape=(-1, 2))
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


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (-1, -1, -1, -1), (-1, 3, 64, -1)])
def test_a_model_of_the_manifests_tiles_is_taken(shape: tuple[int, ...]) -> None:
    assert "logits" == model_of(np.float32, shape=shape).output


@pytest.mark.parametrize("shape", [(4, 3, 64, 64), (-1, 3, 32, 32), (-1, 64, 64, 3), (-1, 4, -1, -1), (-1, 3, -1), (-1,)])
def test_a_model_of_other_tiles_than_the_manifests_is_refused_before_it_is_asked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"tumour takes image of the shape .* and its slide\.json says \[1, 3, 64, 64\]"):
        model_of(np.float32, shape=shape)


@pytest.mark.parametrize("shape", [(), (2,), (3, 2), (1, 2, 2)])
def test_an_output_without_a_row_for_each_tile_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"tumour puts out logits of the shape .* for 2 tiles|for 4 tiles"):
        model_of(np.float32).values({"logits": np.zeros(shape, np.float32)}, 4 if shape == (2,) else 2)


@pytest.mark.parametrize("values", [[[-0.2, 1.2]], [[0.1, 26.0]]])
def test_what_is_no_probability_is_refused_and_the_activation_asked_for(values: list[list[float]]) -> None:
    none = Classes(classes=("glass", "tumour"), activation="none")
    with pytest.raises(ConfigurationError, match=r"m puts out -?[0-9.]+ as a probability. Say the activation"):
        class_probabilities(np.array(values), none, axis=1, model="m", unit="tile")
    # What rounding may do to sound ones.
    assert (1, 2) == class_probabilities(np.array([[-1e-3, 1.004]]), none, axis=1, model="m", unit="tile").shape


def test_numbers_of_16_bits_are_looked_at_too_and_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no finite numbers"):
        output_of({"logits": np.array([np.nan], ml_dtypes.bfloat16)}, "logits", "tumour")
    with pytest.raises(ConfigurationError, match="tumour puts out text as logits"):
        output_of({"logits": np.array(["a"], object)}, "logits", "tumour")


@pytest.mark.parametrize("told", [{"mean": (0.5, 0.5, 0.5)}, {"std": (0.2, 0.2, 0.2), "mean": (0.5, 0.5, 0.5)}, {"scale": 1 / 255}])
def test_a_manifest_that_normalises_what_a_model_of_bytes_takes_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"slide.json says {' and '.join(sorted(told))}, which nothing would apply"):
        model_of(np.uint8, **told)
    model_of(np.uint8, scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_that_are_made_into_probabilities_again_are_noted(activation: Literal["softmax", "sigmoid"]) -> None:
    manifest = TileClassifierManifest(mpp=1.0, tile_size=64, classes=("fat", "stroma", "tumour"), activation=activation)
    values = np.tile([[-4.0, 1.0, 3.0], [0.5, -0.2, 2.5], [6.0, -1.0, 0.0]], (20, 1))
    once = activated(values, activation, 1)
    assert () == doubt(once, manifest)
    [note] = doubt(activated(once, activation, 1), manifest)
    assert f"{activation} was applied twice" in note
    assert () == doubt(activated(once, activation, 1)[:0], manifest)
    assert () == doubt(once, manifest.model_copy(update={"activation": "none"}))
    # As networks of 16 bits round them.
    beyond = once.astype(ml_dtypes.bfloat16).astype(np.float64) * 1.0078125
    assert beyond.max() > 1
    assert doubt(activated(beyond, activation, 1), manifest)


def test_a_few_tiles_that_a_network_is_undecided_on_tell_nothing_of_its_output() -> None:
    manifest = TileClassifierManifest(mpp=1.0, tile_size=64, classes=("stroma", "tumour"))
    undecided = activated(np.array([[0.3, -0.2], [0.1, 0.4], [-0.3, 0.2], [0.9, 0.6]]), "softmax", 1)
    assert () == doubt(undecided, manifest)
    assert doubt(np.tile(undecided, (8, 1)), manifest)


def test_logits_that_are_alike_are_no_probabilities_where_they_cannot_sum_to_one() -> None:
    manifest = TileClassifierManifest(mpp=1.0, tile_size=64, classes=("fat", "muscle", "stroma", "tumour"))
    logits = np.tile([[0.9, 0.8, 0.1, 0.9], [0.2, 0.3, 1.0, 0.9]], (1000, 1))
    assert () == doubt(activated(logits, "softmax", 1), manifest)
    # One tile tells, wherever it is, and one that is sure to the last digit.
    alike = np.full((2000, 4), 0.25)
    assert doubt(alike, manifest)
    for told in ([0.9, 0.1, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]):
        assert () == doubt(np.concatenate([alike, [told]]), manifest)


def test_one_logit_of_two_classes_that_is_a_probability_already_is_noted() -> None:
    manifest = TileClassifierManifest(mpp=1.0, tile_size=64, classes=("glass", "tumour"), activation="sigmoid")
    logits = np.tile([[-3.0], [0.4], [2.0]], (20, 1))

    def made(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(class_probabilities(values, manifest, axis=1, model="tumour", unit="tile"), np.float64)

    assert () == doubt(made(logits), manifest)
    assert doubt(made(made(logits)[:, 1:]), manifest)
