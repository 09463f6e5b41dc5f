"""Small ONNX models for tests, and a repository to put them in."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def write_model(root: Path, name: str, model: onnx.ModelProto, *, config: str = "", version: str = "1") -> Path:
    """Put a model into a repository in Triton's layout; returns its file."""
    path = root / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    if config:
        (root / name / "config.pbtxt").write_text(config)
    return path


def double() -> onnx.ModelProto:
    """`doubled` = 2 x and `negative` = -x, row by row; x is float32 [n, 4]."""
    nodes = [helper.make_node("Add", ["x", "x"], ["doubled"]), helper.make_node("Neg", ["x"], ["negative"])]
    return _model(nodes, [_value("x", FLOAT, ["n", 4])], [_value("doubled", FLOAT, ["n", 4]), _value("negative", FLOAT, ["n", 4])])


def passed_on() -> onnx.ModelProto:
    """`y` = 2 x, which nodes that change nothing pass on, and `z`, the same; x is float32 [n, 4]."""
    nodes = [helper.make_node("Add", ["x", "x"], ["double"])]
    nodes += [helper.make_node("Identity", ["double"], [name]) for name in ("y", "z")]
    return _model(nodes, [_value("x", FLOAT, ["n", 4])], [_value("y", FLOAT, ["n", 4]), _value("z", FLOAT, ["n", 4])])


def widths() -> onnx.ModelProto:
    """`doubled` = 2 x; x is float32 [n, width]."""
    return _model(
        [helper.make_node("Add", ["x", "x"], ["doubled"])], [_value("x", FLOAT, ["n", "w"])], [_value("doubled", FLOAT, ["n", "w"])]
    )


def fixed(rows: int = 1) -> onnx.ModelProto:
    """`doubled` = 2 x; x is float32 [rows, 4], with no batch dimension that varies."""
    shape = [rows, 4]
    return _model([helper.make_node("Add", ["x", "x"], ["doubled"])], [_value("x", FLOAT, shape)], [_value("doubled", FLOAT, shape)])


def ranked() -> onnx.ModelProto:
    """`share` = softmax of x over its first dimension, so that rows depend on each other; x is float32 [n, 4]."""
    nodes = [helper.make_node("Softmax", ["x"], ["share"], axis=0)]
    return _model(nodes, [_value("x", FLOAT, ["n", 4])], [_value("share", FLOAT, ["n", 4])])


def total() -> onnx.ModelProto:
    """`total` = sum of x over its first dimension, [1, 4]; x is float32 [n, 4]."""
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["total"])]
    return _model(nodes, [_value("x", FLOAT, ["n", 4])], [_value("total", FLOAT, [1, 4])], [axes])


def lookup() -> onnx.ModelProto:
    """`value` = ten times the index; index is int64 [n], 0 to 3, and anything else makes ONNX Runtime's run fail."""
    table = numpy_helper.from_array(np.array([0, 10, 20, 30], np.int64), "table")
    nodes = [helper.make_node("Gather", ["table", "index"], ["value"])]
    return _model(nodes, [_value("index", INT64, ["n"])], [_value("value", INT64, ["n"])], [table])


def texts() -> onnx.ModelProto:
    """`same` = text, strings [n]."""
    return _model([helper.make_node("Identity", ["text"], ["same"])], [_value("text", STRING, ["n"])], [_value("same", STRING, ["n"])])


def products(count: int, *, side: int = 768) -> onnx.ModelProto:
    """`y`: x multiplied with that many matrices of side × side, one after another; x is float32 [n, side]."""
    matrix = np.random.default_rng(0).normal(0, side**-0.5, (side, side)).astype(np.float32)
    names = ["x", *(f"product{number}" for number in range(1, count)), "y"]
    nodes = [helper.make_node("MatMul", [before, "matrix"], [after]) for before, after in itertools.pairwise(names)]
    weights = [numpy_helper.from_array(matrix, "matrix")]
    return _model(nodes, [_value("x", FLOAT, ["n", side])], [_value("y", FLOAT, ["n", side])], weights)


def _value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, weights or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
