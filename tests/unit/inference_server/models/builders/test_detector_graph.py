"""The detector as it is written, beside the one that the wheel carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference_server.models.builders.detector_graph import made_cheaper
from inference_server.models.builders.ppocr import build_detector


def answer(model: onnx.ModelProto, page: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": page})[0])


def head(middle: int, steps: int = 2) -> onnx.ModelProto:
    """A detector that is its end alone: three channels, enlarged by `steps`, and again."""
    generator = np.random.default_rng(1)
    weights = {"one": (3, middle, 2, 2), "one_bias": (1, middle, 1, 1), "two": (middle, 1, 2, 2), "two_bias": (1, 1, 1, 1)}
    nodes = [
        helper.make_node("ConvTranspose", ["x", "one"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one_bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("ConvTranspose", ["d", "two"], ["e"], kernel_shape=[2, 2], strides=[steps, steps]),
        helper.make_node("Add", ["e", "two_bias"], ["f"]),
        helper.make_node("Sigmoid", ["f"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "H", "W"])],
        [numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("middle", [1, 5])
def test_pixels_that_are_put_in_order_are_those_that_were_computed_in_place(middle: int) -> None:
    page = np.random.default_rng(2).normal(size=(2, 3, 4, 7)).astype(np.float32)
    model = head(middle)
    cheaper = made_cheaper(model)
    assert {"Conv", "Relu", "DepthToSpace", "Sigmoid"} == operators(cheaper)
    np.testing.assert_allclose(answer(cheaper, page), answer(model, page), atol=1e-6)


def test_an_end_of_another_kind_is_left_as_it_is() -> None:
    model = head(2, steps=1)
    assert operators(model) - {"Identity"} == operators(made_cheaper(model))


def test_the_detector_that_is_built_answers_as_that_of_the_wheel(tmp_path: Path) -> None:
    built = onnx.load(build_detector(tmp_path) / "1" / "model.onnx")
    spec = find_spec("rapidocr")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    carried = onnx.load(Path(spec.submodule_search_locations[0]) / "models" / "PP-OCRv6_det_small.onnx")
    page = np.random.default_rng(3).uniform(-1, 1, (1, 3, 96, 64)).astype(np.float32)
    assert {"ConvTranspose", "HardSigmoid"} < operators(carried)
    assert not {"ConvTranspose", "HardSigmoid"} & operators(built)
    # What is joined is joined at half the size, and once instead of twice.
    assert [3] == [len(node.input) for node in built.graph.node if node.op_type == "Concat"]
    assert [value.name for value in carried.graph.output] == [value.name for value in built.graph.output]
    np.testing.assert_allclose(answer(built, page), answer(carried, page), atol=1e-5)
