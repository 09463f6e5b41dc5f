"""Tile classifiers made for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHANNELS = 32


def write_classifier(models: Path, name: str = "pinkness", *, layout: str = "NCHW", work: int = 0, **manifest: Any) -> Path:
    """A model of two classes, pale ("glass") and pink ("tissue"), told by the mean of green: its logits are ±40 · (0.65 - green).

    `work`: convolutions that it computes beside, for nothing, so that a slide takes its time; NCHW only.
    """
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    shape: list[str | int] = ["batch", 3, "height", "width"] if layout == "NCHW" else ["batch", "height", "width", 3]
    constants = {
        "axes": np.array(axes, np.int64),
        "weights": np.array([[0, 0], [40, -40], [0, 0]], np.float32),
        "bias": np.array([-26, 26], np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["plain" if work else "logits"]),
        *_idle_work(work, constants),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder = models / name
    (folder / "1").mkdir(parents=True)
    onnx.save(model, str(folder / "1" / "model.onnx"))
    told = {"mpp": 1.0, "tile_size": 64, "classes": ["glass", "tissue"], "layout": layout} | manifest
    (folder / "slide.json").write_text(json.dumps(told))
    return folder


def _idle_work(count: int, constants: dict[str, np.ndarray[Any, Any]]) -> list[onnx.NodeProto]:
    if not count:
        return []
    random = np.random.default_rng(3)
    nodes, plane = [], "image"
    for number in range(count):
        shape = (_CHANNELS, 3 if number == 0 else _CHANNELS, 3, 3)
        constants[f"kernel_{number}"] = (random.normal(size=shape) / 20).astype(np.float32)
        nodes.append(helper.make_node("Conv", [plane, f"kernel_{number}"], [f"plane_{number}"], pads=[1, 1, 1, 1]))
        plane = f"plane_{number}"
    constants |= {
        "idle_axes": np.array([1, 2, 3], np.int64),
        "nothing": np.array([[0, 0]], np.float32),
        "column": np.array([-1, 1], np.int64),
    }
    return [
        *nodes,
        helper.make_node("ReduceMean", [plane, "idle_axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["means_column"]),
        helper.make_node("MatMul", ["means_column", "nothing"], ["idle"]),
        helper.make_node("Add", ["plain", "idle"], ["logits"]),
    ]
