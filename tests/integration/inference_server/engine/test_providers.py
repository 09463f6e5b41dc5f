"""Execution providers of ONNX Runtime: never another than was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader, cuda_provider, installed_providers, tensorrt_provider
from inference_server.errors import ModelFailed
from tests.support.models import onnx_models


@pytest.mark.skipif("CUDAExecutionProvider" in installed_providers(), reason="this ONNX Runtime has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_fall_back_to_the_cpu_is_refused(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "double", onnx_models.double())
    for provider in (cuda_provider(0), tensorrt_provider(0, tmp_path)):
        loader = OnnxRuntimeLoader(threads=1, provider=provider)
        with pytest.raises(
            ModelFailed, match=rf"{provider.engine} cannot run model\.onnx: ONNX Runtime fell back from {provider.name} to CPU"
        ):
            loader.load(path, "float32")


def test_tensorrt_offers_half_precision_and_leaves_the_rest_to_cuda(tmp_path: Path) -> None:
    provider = tensorrt_provider(1, tmp_path)
    assert ("float32", "float16", "bfloat16") == OnnxRuntimeLoader(threads=1, provider=provider).precisions
    assert ["CUDAExecutionProvider"] == [name for name, _ in provider.helpers]
    assert {"1"} == {options["device_id"] for options in (*provider.options.values(), provider.helpers[0][1])}
