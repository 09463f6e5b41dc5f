"""Classifiers of the shapes of ResNet-18, ResNet-50 and ViT-L/16, with random weights: as much work, and nothing to download.

ResNets (He et al. 2015, arXiv:1512.03385) with their normalisations folded into the convolutions; ViT-L/16 (Dosovitskiy et al. 2020,
arXiv:2010.11929), its 300 million weights stored in half precision and computed in single. All: `image` [N, 3, 224, 224] float32 →
`logits` [N, classes] float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RESNET, SMALL_RESNET, VIT = "resnet50_shaped", "resnet18_shaped", "vit_l_shaped"
_OPSET, _IR_VERSION = 17, 8
# As many as ImageNet has; the smaller one is for slides, and tells nine kinds of tissue, as NCT-CRC-HE (Kather et al. 2019) does.
CLASSES = {RESNET: 1000, SMALL_RESNET: 9, VIT: 1000}
_SIDE = 224
_CONFIG = """max_batch_size: {rows}
input {{ name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: {classes} }}
instance_group {{ count: 2 }}
parameters {{ key: "lamina.tolerance" value {{ string_value: "0.05" }} }}
"""


def build(models: Path, name: str, *, layers: int = 24, rows: int = 32) -> Path:
    """Write a model of the repository; returns its folder. `layers`: of ViT."""
    folder = models / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    graph = _Graph(CLASSES[name])
    outputs = _vit(graph, layers) if name == VIT else _resnet(graph, deep=name == RESNET)
    onnx.save(graph.model(name, outputs), folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(_CONFIG.format(rows=rows, classes=CLASSES[name]))
    return folder


class _Graph:
    """Nodes and weights, named by their numbers."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """One more node; returns the name of its output."""
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}_node", **attributes))
        return output

    def random(self, *shape: int, scale: float, half: bool = False) -> str:
        """Weights of a normal distribution; those in half precision are cast where they are used."""
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        name = self.constant(values.astype(np.float16) if half else values)
        return self.node("Cast", name, to=TensorProto.FLOAT) if half else name

    def constant(self, values: np.ndarray) -> str:
        """Values as they are."""
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def model(self, name: str, logits: str) -> onnx.ModelProto:
        """The whole."""
        self._nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, _SIDE, _SIDE])
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", self.classes])
        graph = helper.make_graph(self._nodes, name, [image], [output], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _resnet(graph: _Graph, *, deep: bool) -> str:
    x = graph.node("Relu", _convolution(graph, "image", 3, 64, side=7, stride=2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3) if deep else (2, 2, 2, 2)):
        width = 64 << stage
        for block in range(blocks):
            x = (_bottleneck if deep else _basic)(graph, x, channels, width, stride=2 if stage and not block else 1)
            channels = 4 * width if deep else width
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1)
    return graph.node(
        "Gemm", x, graph.random(channels, graph.classes, scale=channels**-0.5), graph.constant(np.zeros(graph.classes, np.float32))
    )


def _bottleneck(graph: _Graph, x: str, channels: int, width: int, *, stride: int) -> str:
    y = graph.node("Relu", _convolution(graph, x, channels, width))
    y = graph.node("Relu", _convolution(graph, y, width, width, side=3, stride=stride))
    # Scaled down, so that sixteen sums do not grow beyond half precision.
    y = _convolution(graph, y, width, 4 * width, scale=0.25)
    short = x if channels == 4 * width and stride == 1 else _convolution(graph, x, channels, 4 * width, stride=stride)
    return graph.node("Relu", graph.node("Add", y, short))


def _basic(graph: _Graph, x: str, channels: int, width: int, *, stride: int) -> str:
    y = graph.node("Relu", _convolution(graph, x, channels, width, side=3, stride=stride))
    y = _convolution(graph, y, width, width, side=3, scale=0.25)
    short = x if channels == width and stride == 1 else _convolution(graph, x, channels, width, stride=stride)
    return graph.node("Relu", graph.node("Add", y, short))


def _convolution(graph: _Graph, x: str, taken: int, given: int, *, side: int = 1, stride: int = 1, scale: float = 1.0) -> str:
    weights = graph.random(given, taken, side, side, scale=scale * (2 / (taken * side * side)) ** 0.5)
    bias = graph.constant(np.zeros(given, np.float32))
    pads = [side // 2] * 4
    return graph.node("Conv", x, weights, bias, kernel_shape=[side, side], strides=[stride, stride], pads=pads)


def _vit(graph: _Graph, layers: int, *, width: int = 1024, heads: int = 16, patch: int = 16) -> str:
    tokens = (_SIDE // patch) ** 2
    weights = graph.random(width, 3, patch, patch, scale=(3 * patch * patch) ** -0.5, half=True)
    x = graph.node("Conv", "image", weights, kernel_shape=[patch, patch], strides=[patch, patch])
    x = graph.node("Transpose", graph.node("Reshape", x, graph.constant(np.array([0, width, tokens], np.int64))), perm=[0, 2, 1])
    # The class token, once for each image: a row of the patches times nothing, plus the token.
    first = graph.node("Slice", x, *(graph.constant(np.array([number], np.int64)) for number in (0, 1, 1)))
    none = graph.node("Mul", first, graph.constant(np.zeros(1, np.float32)))
    x = graph.node("Concat", graph.node("Add", none, graph.random(1, 1, width, scale=0.02)), x, axis=1)
    x = graph.node("Add", x, graph.random(1, tokens + 1, width, scale=0.02))
    for _ in range(layers):
        x = graph.node("Add", x, _attention(graph, _normalised(graph, x, width), width, heads))
        x = graph.node("Add", x, _feed_forward(graph, _normalised(graph, x, width), width))
    x = graph.node("Gather", _normalised(graph, x, width), graph.constant(np.array(0, np.int64)), axis=1)
    return graph.node("MatMul", x, graph.random(width, graph.classes, scale=width**-0.5, half=True))


def _normalised(graph: _Graph, x: str, width: int) -> str:
    ones, zeros = graph.constant(np.ones(width, np.float32)), graph.constant(np.zeros(width, np.float32))
    return graph.node("LayerNormalization", x, ones, zeros, axis=-1, epsilon=1e-6)


def _attention(graph: _Graph, x: str, width: int, heads: int) -> str:
    split = graph.constant(np.array([0, 0, heads, width // heads], np.int64))

    def projected(perm: list[int]) -> str:
        values = graph.node("MatMul", x, graph.random(width, width, scale=width**-0.5, half=True))
        return graph.node("Transpose", graph.node("Reshape", values, split), perm=perm)

    query, key, value = projected([0, 2, 1, 3]), projected([0, 2, 3, 1]), projected([0, 2, 1, 3])
    scores = graph.node("Mul", graph.node("MatMul", query, key), graph.constant(np.array((width // heads) ** -0.5, np.float32)))
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    joined = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), graph.constant(np.array([0, 0, width], np.int64)))
    return graph.node("MatMul", joined, graph.random(width, width, scale=width**-0.5, half=True))


def _feed_forward(graph: _Graph, x: str, width: int) -> str:
    inner = graph.node("MatMul", x, graph.random(width, 4 * width, scale=width**-0.5, half=True))
    # GELU as exporters write it.
    bent = graph.node("Erf", graph.node("Mul", inner, graph.constant(np.array(0.5**0.5, np.float32))))
    half = graph.node("Mul", inner, graph.constant(np.array(0.5, np.float32)))
    active = graph.node("Mul", half, graph.node("Add", bent, graph.constant(np.array(1, np.float32))))
    return graph.node("MatMul", active, graph.random(4 * width, width, scale=(4 * width) ** -0.5, half=True))
