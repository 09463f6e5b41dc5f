"""Tile classifiers made for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_classifier(models: Path, name: str = "pinkness", *, layout: str = "NCHW", **manifest: Any) -> Path:
    """A model of two classes, pale ("glass") and pink ("tissue"), told by the mean of green: its logits are ±40 · (0.65 - green)."""
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
        helper.make_node("Add", ["products", "bias"], ["logits"]),
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
