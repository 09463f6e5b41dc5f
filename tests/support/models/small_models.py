"""Models small enough to be made in a test, written in Triton's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = [helper.make_opsetid("", 17)]


def write_model(repository: Path, name: str, model: onnx.ModelProto, config: str = "", version: str = "1") -> Path:
    """Put a model into a repository, with a config.pbtxt when one is given."""
    folder = repository / name / version
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    if config:
        (repository / name / "config.pbtxt").write_text(config)
    return folder


def sum_and_difference() -> onnx.ModelProto:
    """`a`, `b` [N, 4] float32 → `sum`, `difference`."""
    floats = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])  # noqa: E731
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    graph = helper.make_graph(nodes, "sum_and_difference", [floats("a"), floats("b")], [floats("sum"), floats("difference")])
    return helper.make_model(graph, opset_imports=_OPSET, ir_version=8)


def text_identity() -> onnx.ModelProto:
    """`text` [N] string → `same`."""
    text = lambda name: helper.make_tensor_value_info(name, TensorProto.STRING, ["batch"])  # noqa: E731
    graph = helper.make_graph([helper.make_node("Identity", ["text"], ["same"])], "text_identity", [text("text")], [text("same")])
    return helper.make_model(graph, opset_imports=_OPSET, ir_version=8)


def identity(kind: TensorProto.DataType) -> onnx.ModelProto:
    """`x` [N, 4] of any type → `y`, the same."""
    tensor = lambda name: helper.make_tensor_value_info(name, kind, ["batch", 4])  # noqa: E731
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [tensor("x")], [tensor("y")])
    return helper.make_model(graph, opset_imports=_OPSET, ir_version=8)


def slow() -> onnx.ModelProto:
    """`steps` [1] int64 → `done` [1] float32, after as many products of 192 × 192 matrices: about a third of a millisecond each."""
    size = 192
    weights = numpy_helper.from_array(np.eye(size, dtype=np.float32), "weights")
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("MatMul", ["state", "weights"], ["next"])],
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [size, size]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["steps"], ["count"]),
        helper.make_node("Loop", ["count", "", "weights"], ["last"], body=body),
        helper.make_node("ReduceMean", ["last"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["done"]),
    ]
    one = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")
    steps = helper.make_tensor_value_info("steps", TensorProto.INT64, [1])
    done = helper.make_tensor_value_info("done", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "slow", [steps], [done], [weights, one])
    return helper.make_model(graph, opset_imports=_OPSET, ir_version=8)


def write_small_repository(repository: Path) -> None:
    """The three models above, and `broken`, whose file is no model."""
    write_model(repository, "sum_and_difference", sum_and_difference(), "max_batch_size: 8\n")
    write_model(repository, "text_identity", text_identity(), "max_batch_size: 8\n")
    write_model(repository, "slow", slow(), "max_batch_size: 0\n")
    broken = repository / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"this is no model")
