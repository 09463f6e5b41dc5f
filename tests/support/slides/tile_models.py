"""Tile models made for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHANNELS = 32


def write_classifier(
    models: Path, name: str = "pinkness", *, layout: str = "NCHW", work: int = 0, single: bool = False, **manifest: Any
) -> Path:
    """A model of two classes, pale ("glass") and pink ("tissue"), told by the mean of green: its logits are ±40 · (0.65 - green).

    `single`: it puts out one logit, that of "tissue", with the same probability. `work`: convolutions that it computes beside, for
    nothing, so that a slide takes its time; NCHW only.
    """
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    shape: list[Any] = ["batch", 3, "height", "width"] if layout == "NCHW" else ["batch", "height", "width", 3]
    constants = {
        "axes": np.array(axes, np.int64),
        "weights": np.array([[0], [-80], [0]] if single else [[0, 0], [40, -40], [0, 0]], np.float32),
        "bias": np.array([52] if single else [-26, 26], np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["plain" if work else "logits"]),
        *_idle_work(work, constants),
    ]
    told = {"mpp": 1.0, "tile_size": 64, "classes": ["glass", "tissue"], "layout": layout} | manifest
    return _write(models, name, nodes, constants, inputs={"image": shape}, outputs={"logits": ["batch", 1 if single else 2]}, manifest=told)


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


def write_embedder(models: Path, name: str = "colours", **manifest: Any) -> Path:
    """A model whose vector is a tile's mean red, green and blue, and 1."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "wider"], ["padded"]),
        helper.make_node("Add", ["padded", "one"], ["vector"]),
    ]
    constants = {"axes": np.array([2, 3], np.int64), "wider": np.eye(3, 4, dtype=np.float32), "one": np.array([0, 0, 0, 1], np.float32)}
    inputs = {"image": ["batch", 3, "height", "width"]}
    told = {"kind": "embedder", "mpp": 1.0, "tile_size": 64} | manifest
    return _write(models, name, nodes, constants, inputs=inputs, outputs={"vector": ["batch", 4]}, manifest=told)


def write_head(models: Path, name: str = "judge", *, batched: bool = False, tiles: int | str = "tiles", **manifest: Any) -> Path:
    """A head over `colours` that looks at tiles with little green, and calls a slide "pink" when those it looks at have less than 0.65."""
    rank = 3 if batched else 2
    lead = ["batch"] if batched else []
    nodes = [
        helper.make_node("MatMul", ["bag", "looks"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["weights"], axis=rank - 2),
        helper.make_node("Mul", ["bag", "weights"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "tiles"], ["slide"], keepdims=0 if batched else 1),
        helper.make_node("MatMul", ["slide", "classes"], ["logits"]),
    ]
    constants = {
        "looks": np.array([[0], [-20], [0], [0]], np.float32),
        "tiles": np.array([rank - 2], np.int64),
        "classes": np.array([[0, 0], [40, -40], [0, 0], [-26, 26]], np.float32),
    }
    folder = _write(
        models,
        name,
        nodes,
        constants,
        inputs={"bag": [*lead, tiles, 4]},
        outputs={"logits": [*lead, 2] if batched else [1, 2], "weights": [*lead, tiles, 1]},
        manifest={"kind": "mil", "embedder": "colours", "classes": ["pale", "pink"], "output": "logits", "attention": "weights"} | manifest,
    )
    if not batched:
        (folder / "config.pbtxt").write_text("max_batch_size: 0\n")
    return folder


def write_segmenter(models: Path, name: str = "stains", *, reach: int = 2, stride: int = 1, **manifest: Any) -> Path:
    """A model of three classes by the mean of red and of green within `reach` px: glass, then pink, then dark.

    `stride`: of which pixels it puts out, every second, third and so on.
    """
    size = 2 * reach + 1
    kernel = np.zeros((2, 3, size, size), np.float32)
    kernel[0, 0], kernel[1, 1] = 1 / size**2, 1 / size**2
    # Glass where green is above 0.8; else dark where red is below 0.55.
    mix = np.array([[0, 40], [0, 0], [-40, -40]], np.float32).reshape(3, 2, 1, 1)
    bias = np.array([-32, 0, 40 * (0.55 + 0.5)], np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["means"], pads=[reach] * 4),
        helper.make_node("Conv", ["means", "mix", "bias"], ["logits"], strides=[stride] * 2),
    ]
    shape = ["batch", 3, "height", "width"]
    told = {"kind": "segmenter", "mpp": 1.0, "tile_size": 64, "overlap": 8, "classes": ["glass", "pink", "dark"], "background": "glass"}
    return _write(
        models,
        name,
        nodes,
        {"kernel": kernel, "mix": mix, "bias": bias},
        inputs={"image": shape},
        outputs={"logits": ["batch", 3, "rows", "columns"]},
        manifest=told | manifest,
    )


def write_many_classes(models: Path, classes: int, name: str = "many", **manifest: Any) -> Path:
    """A segmenter of so many classes, one for each level of green."""
    # The nearest of evenly spaced levels: the line with the largest value at x of those that touch x² / 2.
    levels = np.linspace(0, 1, classes, dtype=np.float32)
    kernel = np.zeros((classes, 3, 1, 1), np.float32)
    kernel[:, 1, 0, 0] = levels
    shape = ["batch", 3, "height", "width"]
    return _write(
        models,
        name,
        [helper.make_node("Conv", ["image", "kernel", "bias"], ["logits"])],
        {"kernel": kernel, "bias": -(levels**2) / 2},
        inputs={"image": shape},
        outputs={"logits": ["batch", classes, "height", "width"]},
        manifest={"kind": "segmenter", "mpp": 1.0, "tile_size": 64, "classes": [f"level {number}" for number in range(classes)]} | manifest,
    )


def _write(
    models: Path,
    name: str,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray[Any, Any]],
    *,
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    manifest: dict[str, Any],
) -> Path:
    def declared(tensors: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in tensors.items()]

    graph = helper.make_graph(
        nodes, name, declared(inputs), declared(outputs), [numpy_helper.from_array(value, key) for key, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder = models / name
    (folder / "1").mkdir(parents=True)
    onnx.save(model, str(folder / "1" / "model.onnx"))
    (folder / "slide.json").write_text(json.dumps(manifest))
    return folder
