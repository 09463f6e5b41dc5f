"""Parts of a graph that are rewritten compute what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from inference_server.models.builders.detector_graph import made_cheaper

CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def model(nodes: list[NodeProto], **constants: Any) -> onnx.ModelProto:
    """Takes x [n, 4, h, w]; what it makes is called y. A constant is its values, or the shape of random ones."""
    draw = np.random.default_rng(1)
    arrays = {name: draw.normal(size=value) if isinstance(value, tuple) else np.asarray(value) for name, value in constants.items()}
    graph = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "C", "H", "W"])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


def resized(value: str, scales: str, mode: str = "nearest") -> NodeProto:
    how = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return helper.make_node("Resize", [value, "roi", scales], [f"{value}.{scales}"], **how)


def joined(mode: str = "nearest") -> onnx.ModelProto:
    """x, and it enlarged from a half and from a quarter, joined for a convolution of 3 x 3."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxPool", ["half"], ["quarter"], kernel_shape=[1, 1], strides=[2, 2]),
        resized("half", "two", mode),
        resized("quarter", "four", mode),
        helper.make_node("Concat", ["quarter.four", "half.two", "x"], ["all"], axis=1),
        helper.make_node("Conv", ["all", "weight"], ["y"], **CONV),
    ]
    return model(nodes, weight=(5, 12, 3, 3), roi=[], two=[1, 1, 2, 2], four=[1, 1, 4, 4])


def gated() -> onnx.ModelProto:
    """x times a gate, and x added."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Conv", ["mean", "weight"], ["product"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["product", "bias"], ["line"]),
        helper.make_node("HardSigmoid", ["line"], ["gate"], alpha=0.3, beta=0.4),
        helper.make_node("Mul", ["x", "gate"], ["gated"]),
        helper.make_node("Add", ["x", "gated"], ["y"]),
    ]
    return model(nodes, weight=(4, 4, 1, 1), bias=(1, 4, 1, 1))


def joined_pair() -> onnx.ModelProto:
    """x and what is left of it where it is positive, joined for a convolution."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Concat", ["x", "positive"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "weight"], ["y"], strides=[2, 2], **CONV),
    ]
    return model(nodes, weight=(3, 8, 3, 3))


def answer(of: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(of.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def operators(of: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in of.graph.node]


@pytest.mark.parametrize(
    ("whole", "gone"), [(joined(), "quarter.four"), (gated(), "gated"), (joined_pair(), "both")], ids=["joined", "gated", "pair"]
)
def test_what_is_rewritten_answers_as_before(whole: onnx.ModelProto, gone: str) -> None:
    cheaper = made_cheaper(whole)
    assert gone not in {name for node in cheaper.graph.node for name in node.output}
    x = np.random.default_rng(3).normal(size=(2, 4, 8, 12)).astype(np.float32)
    np.testing.assert_allclose(answer(cheaper, x), answer(whole, x), atol=1e-5)


def test_a_gate_is_clipped_and_added_in_one_step() -> None:
    assert ["GlobalAveragePool", "Conv", "Clip", "Mul"] == operators(made_cheaper(gated()))


def test_what_is_enlarged_between_pixels_is_joined_at_its_size() -> None:
    whole = joined(mode="linear")
    assert sorted(operators(whole)) == sorted(operators(made_cheaper(whole)))
