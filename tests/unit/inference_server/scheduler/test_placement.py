"""Which engine a configuration asks for on a GPU, and with what options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.engine.tensorrt.profiles import written
from inference_server.models.config import read_configuration
from inference_server.models.values import Configuration
from inference_server.scheduler.loading.placement import options_on, pin_of, profiles_of

X = TensorSpec(name="x", dtype=np.dtype(np.float32), shape=(-1, 8))
TENSORRT = """optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt"
    parameters { key: "precision_mode" value: "FP16" } parameters { key: "minimum_segment_size" value: "5" } } } }"""
PROFILES = ("x=1x8:2x8:4x8", "x=5x8:6x8:8x8")


def _read(folder: Path, *parts: str, profiles: int = 0) -> Configuration:
    (folder / "net").mkdir()
    told = [
        f'parameters {{ key: "lamina.tensorrt_profile.{number + 1}" value {{ string_value: "{PROFILES[number]}" }} }}'
        for number in range(profiles)
    ]
    (folder / "net" / "config.pbtxt").write_text("\n".join([*parts, *told]))
    return read_configuration(folder / "net")


@pytest.mark.parametrize(("profiles", "engine"), [(0, "onnxruntime-tensorrt"), (1, "onnxruntime-tensorrt"), (2, "tensorrt")])
def test_several_profiles_are_for_tensorrt_itself_and_one_for_onnx_runtime(tmp_path: Path, profiles: int, engine: str) -> None:
    configuration = _read(tmp_path, TENSORRT, profiles=profiles)
    assert f"{engine}:float16" == pin_of(configuration, "cuda:0")
    assert {engine: {"trt_min_subgraph_size": "5"}} == options_on(configuration, "cuda:0")
    assert {} == options_on(configuration, "cpu")


def test_the_owners_profiles_count_then_those_of_the_provider_then_likely_ones(tmp_path: Path) -> None:
    shapes = "".join(
        f'parameters {{ key: "trt_profile_{part}_shapes" value: "x:{rows}x8" }}' for part, rows in (("min", 1), ("opt", 3), ("max", 9))
    )
    provider = f'optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ name: "tensorrt" {shapes} }} }} }}'
    cases = {
        "own": (_read, {"profiles": 2}, (provider,), list(PROFILES)),
        "provider": (_read, {}, (provider,), ["x=1x8:3x8:9x8"]),
        "likely": (_read, {}, ('max_batch_size: 16 input { name: "x" data_type: TYPE_FP32 dims: 8 }',), ["x=1x8:16x8:16x8"]),
        "nothing": (_read, {}, (), ["x=1x8:32x8:32x8"]),
    }
    for name, (read, more, parts, expected) in cases.items():
        (tmp_path / name).mkdir()
        found = profiles_of(read(tmp_path / name, *parts, **more), [X], default_max_batch_size=32, device="cuda:0")
        assert expected == list(map(written, found)), name


def test_truth_values_may_be_written_as_words_and_built_engines_are_kept_anyway(tmp_path: Path) -> None:
    told = "".join(
        f'parameters {{ key: "{key}" value: "{value}" }}'
        for key, value in (("trt_cuda_graph_enable", "true"), ("trt_sparsity_enable", "False"), ("trt_engine_cache_enable", "True"))
    )
    configuration = _read(
        tmp_path, f'optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ name: "tensorrt" {told} }} }} }}'
    )
    assert {"onnxruntime-tensorrt": {"trt_cuda_graph_enable": "1", "trt_sparsity_enable": "0"}} == options_on(configuration, "cuda:0")
