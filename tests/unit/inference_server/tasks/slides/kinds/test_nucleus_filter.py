"""A filter's manifest is held to its model."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.errors import ConfigurationError, InvalidInput
from inference_server.models import shipped
from inference_server.models.config import read_configuration
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.kinds.nucleus_filter import NucleusFilter
from inference_server.tasks.slides.manifest import NucleiManifest
from tests.support.models.built_models import built_models

SHIPPED = json.loads(shipped.slide_manifest("he_baseline"))


@functools.cache
def built() -> ModelFacts:
    """Of the model that is built, as if it had been copied to the folder `mine`."""
    configuration = read_configuration(built_models("he_baseline") / "he_baseline")
    return ModelFacts(
        name="mine",
        version="1",
        engine="onnxruntime:float32",
        inputs=tuple(TensorSpec(name=each.name, dtype=each.dtype, shape=each.dims) for each in configuration.inputs),
        outputs=tuple(TensorSpec(name=each.name, dtype=each.dtype, shape=each.dims) for each in configuration.outputs),
        max_batch_size=24,
        sha256="",
        parameters=configuration.parameters,
    )


def filter_of(facts: ModelFacts | None = None, **changes: Any) -> NucleusFilter:
    return NucleusFilter(manifest=NucleiManifest.model_validate(SHIPPED | changes), facts=facts or built())


def test_the_manifest_that_is_shipped_fits_the_graph_that_is_built() -> None:
    plan = filter_of().plan()
    assert ("mine", 0.5, 512, 28, 16, 1) == (plan.model, plan.mpp, plan.tile_size, plan.halo, plan.cell, plan.batch)
    assert not plan.learned_weights


@pytest.mark.parametrize(("tile_size", "batch"), [(64, 24), (256, 24), (496, 6), (512, 1), (2048, 1)])
def test_tiles_of_a_size_that_is_asked_for_come_in_calls_that_the_model_takes(tile_size: int, batch: int) -> None:
    plan = filter_of().plan(tile_size)
    assert (tile_size, batch) == (plan.tile_size, plan.batch)


def test_a_manifest_says_which_tile_sizes_there_are() -> None:
    found = filter_of(tile_size=256, tile_sizes=[128, 1024])
    assert 256 == found.plan().tile_size
    with pytest.raises(InvalidInput, match=r"tile_size is 64; mine takes multiples of 16 from 128 to 1024 px, or 0 for 256"):
        found.plan(64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"halo": 20}, "mine/slide.json says halo 20; the model's graph has 28"),
        ({"cell": 8, "mpp": 1.0, "scales": {"candidates": 4, "coarse_candidates": 5.6}}, "says cell 8; the model's graph has 16"),
        ({"mpp": 0.25}, "says a cell of 16 px at an mpp of 0.25; blur is told on blocks of 32 px there"),
        ({"mpp": 0.4}, r"says 1.35 µm as scales.finest_candidates; the graph's Gaussian has 2.69 px, which are 1.08 µm at its mpp of 0.4"),
        ({"scales": {"candidates": 2, "coarse_candidates": 4}}, "says 4 µm as scales.coarse_candidates"),
        (
            {"scales": {"candidates": 2, "larger": 2.8}},
            "lacks the output larger, which its slide.json of kind nuclei needs; it has",
        ),
        ({"least_response_od": 0.01}, "least_response_od 0.01; the model's graph puts out no maxima of less than 0.02"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_refused_with_what_the_graph_has(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        filter_of(**changes)


def test_another_resolution_is_taken_with_the_scales_that_the_graph_has_there() -> None:
    assert 0.4 == filter_of(mpp=0.4, scales={"candidates": 1.56, "coarse_candidates": 2.24}).plan().mpp


def test_a_model_that_takes_no_pixels_is_refused() -> None:
    tiles, leak = built().inputs
    with pytest.raises(ConfigurationError, match="mine takes tiles of float32; a model of kind nuclei takes pixels as uint8"):
        filter_of(replace(built(), inputs=(replace(tiles, dtype=np.dtype(np.float32)), leak)))
    with pytest.raises(ConfigurationError, match="mine lacks the input eosin_leak"):
        filter_of(replace(built(), inputs=(tiles,)))


def test_a_parameter_that_is_no_number_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"mine/config.pbtxt has the parameter lamina.slide.halo 'wide'; expected a number"):
        filter_of(replace(built(), parameters={"lamina.slide.halo": "wide"}))


@pytest.mark.parametrize("halo", [20, 60])
def test_without_parameters_the_outputs_tell_what_does_not_fit(halo: int) -> None:
    found = filter_of(replace(built(), parameters={}), halo=halo)
    outputs = {"candidates": np.zeros((2, 128, 128), np.float32), "eosin": np.zeros((2, 16, 16), np.float32)}
    filter_of().check_outputs(outputs | {"coarsest_candidates": np.zeros((2, 64, 64), np.float32)}, (2, 312, 312, 3))
    with pytest.raises(ConfigurationError, match=r"mine puts out candidates of the shape \[2, 128, 128\] for 2 tiles of 312 × 312 px"):
        found.check_outputs(outputs, (2, 312, 312, 3))
