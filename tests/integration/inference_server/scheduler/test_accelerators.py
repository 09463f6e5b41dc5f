"""`optimization.execution_accelerators`: the engine that the owner wants, or a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.status import ModelState
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, gpu_selector, selector

TENSORRT = """optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt"
                parameters { key: "precision_mode" value: "FP16" } parameters { key: "max_workspace_size_bytes" value: "1073741824" }
                parameters { key: "trt_builder_optimization_level" value: "5" } } } }"""
OPENVINO = 'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }'


async def test_tensorrt_is_pinned_on_a_gpu_with_its_precision_and_parameters(tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{TENSORRT} instance_group {{ count: 2 }}")
    cuda, tensorrt = ReferenceLoader("onnxruntime-cuda"), ReferenceLoader("onnxruntime-tensorrt", precisions=("float32", "float16"))
    async with serving(tmp_path, {"cuda:0": gpu_selector(ReferenceLoader(), cuda, tensorrt)}) as models:
        assert "onnxruntime-tensorrt:float16" == (await ask(models)).engine
    assert {"trt_max_workspace_size": "1073741824", "trt_builder_optimization_level": "5"} == tensorrt.options
    assert (0, 2) == (cuda.loads, tensorrt.loads)


async def test_openvino_is_pinned_on_the_cpu(tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=OPENVINO)
    async with serving(tmp_path, EngineSelector(discover()), options=SchedulingOptions(engine="onnxruntime")) as models:
        assert models.facts("double").engine.startswith("openvino:")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (TENSORRT, "gpu_execution_accelerator tensorrt, but the model runs on cpu here"),
        (OPENVINO, "there is no engine openvino on cpu"),
        (
            OPENVINO + ' parameters { key: "lamina.engine" value { string_value: "numpy" } }',
            "the accelerator openvino and for lamina.engine numpy",
        ),
    ],
)
async def test_what_is_not_there_is_refused_by_name(tmp_path: Path, config: str, reason: str) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=config)
    async with serving(tmp_path, selector(ReferenceLoader())) as models:
        (status,) = models.index()
    assert ModelState.UNAVAILABLE == status.state
    assert reason in status.reason


GRAPHS = """max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] } optimization {
    cuda { graphs: true graph_spec { batch_size: 8 } graph_spec { batch_size: 4 input { key: "x" value { dim: 4 } } } }
    input_pinned_memory { enable: false } output_pinned_memory { enable: true } }
    parameters { key: "gpu_mem_limit" value { string_value: "1073741824" } }
    parameters { key: "cudnn_conv_algo_search" value { string_value: "0" } }"""


async def test_graphs_page_locked_memory_and_options_of_cuda_reach_the_engine(tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=GRAPHS)
    cuda = ReferenceLoader("onnxruntime-cuda")
    async with serving(tmp_path, {"cuda:0": gpu_selector(ReferenceLoader(), cuda)}) as models:
        assert "onnxruntime-cuda:float32" == (await ask(models)).engine
    assert {
        "enable_cuda_graph": "1",
        "graph_shapes": '[[8, {}], [4, {"x": [4]}]]',
        "pinned_input": "0",
        "gpu_mem_limit": "1073741824",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    } == cuda.options


async def test_what_means_something_on_a_gpu_only_is_refused_by_name_on_the_cpu(tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=GRAPHS)
    async with serving(tmp_path, selector(ReferenceLoader())) as models:
        (status,) = models.index()
    assert ModelState.UNAVAILABLE == status.state
    named = "input_pinned_memory, optimization.output_pinned_memory, optimization.cuda, parameters.cudnn_conv_algo_search"
    assert f"asks for optimization.{named}, parameters.gpu_mem_limit, which means something on a GPU only" in status.reason
