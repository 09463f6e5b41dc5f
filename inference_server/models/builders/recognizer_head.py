"""The last layer of a text recogniser, split so that Latin text pays for Latin classes alone.

Of 18,710 classes 17,900 are Han, kana and signs that most documents never show, yet their likelihoods at each step of a line take a
sixth of the recogniser's time and nearly all of its answer. The split model answers the logits of the common classes, and of the rare
ones what tells whether one of them may be the likeliest: then their logits are computed from the step's features, which it answers too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from inference_server.errors import ConfigurationError

COMMON, RARE, FEATURES = "common", "rare", "features"

# Latin, Greek, Cyrillic, digits, punctuation, currencies and the like come before the arrows.
_FIRST_RARE = 0x2190
# Han characters, from the first and before the second.
_HAN = ((0x3400, 0xA000), (0xF900, 0xFB00))
# So many Han characters have one that stands for them, whose logit counts as so much higher than it is. With what readers allow
# beside (`tasks/documents/steps`), of 20,537 steps at which one of 17,888 rare characters was the likeliest, on clean and on hardly legible
# lines, all but 8 are found; of steps of Latin text 0.8 % are looked at.
_STAND_FOR = 16
_HIGHER = 6.0
# Han characters that look like dashes, strokes, letters and figures: where one of these stands, no other Han character need be likely.
_LOOK_ALIKE = frozenset("一丁丄丫丿乙了二三十卜工口人入八几厂土士王日曰目田川下上个千干于丈大小心彡刂")


@dataclass(frozen=True, kw_only=True)
class SplitRecognizer:
    """A recogniser whose last layer is split."""

    # Answers `common`: logits [N, T, common classes]; `rare`: about how high a rare class' logit may be [N, T]; `features` [N, T, D].
    model: onnx.ModelProto
    # By class, without the blank, which is the first, and the space, which is the last.
    common: tuple[str, ...]
    # By row of `rare_weights`.
    rare: tuple[str, ...]
    # A step's logits are these times its features and 1; float32 [rare classes, D + 1].
    rare_weights: NDArray[np.float32]


def split_recognizer(model: onnx.ModelProto, characters: Sequence[str], file: str) -> SplitRecognizer:
    """Split a recogniser that ends in MatMul, Add and Softmax. `characters`: by class, between the blank and the space.

    Raises `ConfigurationError` for one that ends in something else.
    """
    split = onnx.ModelProto()
    split.CopyFrom(model)
    head = _cut_head(split.graph, file)
    is_common = np.array([True, *(ord(character[0]) < _FIRST_RARE for character in characters), True])
    rare = tuple(character for character, common in zip(characters, is_common[1:-1], strict=True) if not common)
    layer = np.vstack([head.weights, head.bias])
    _append(split.graph, head.features, layer[:, is_common], _sample(layer[:, ~is_common], rare))
    return SplitRecognizer(
        model=split,
        common=tuple(character for character, common in zip(characters, is_common[1:-1], strict=True) if common),
        rare=rare,
        rare_weights=np.ascontiguousarray(layer[:, ~is_common].T, np.float32),
    )


@dataclass(frozen=True, kw_only=True)
class _Head:
    # The tensor [N, T, D] that the last layer takes.
    features: str
    # [D, classes].
    weights: NDArray[np.float32]
    # [classes].
    bias: NDArray[np.float32]


def _cut_head(graph: onnx.GraphProto, file: str) -> _Head:
    """Take the last layer and the outputs off a graph."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {constant.name: constant for constant in graph.initializer}

    def before(tensor: str, kind: str) -> onnx.NodeProto:
        node = makers.get(tensor)
        while node is not None and node.op_type == "Identity":
            cut.append(node)
            node = makers.get(node.input[0])
        if node is None or node.op_type != kind:
            raise ConfigurationError(
                f"{file} of the package rapidocr does not end in MatMul, Add and Softmax: there is no {kind}. "
                "Install rapidocr 3.10 or newer, below 4."
            )
        cut.append(node)
        return node

    cut: list[onnx.NodeProto] = []
    add = before(before(graph.output[0].name, "Softmax").input[0], "Add")
    product = before(add.input[0], "MatMul")
    weights, bias = constants[product.input[1]], constants[add.input[1]]
    for node in cut:
        graph.node.remove(node)
    for constant in (weights, bias):
        graph.initializer.remove(constant)
    del graph.output[:]
    return _Head(features=product.input[0], weights=numpy_helper.to_array(weights), bias=numpy_helper.to_array(bias))


def _sample(layer: NDArray[np.float32], rare: Sequence[str]) -> NDArray[np.float32]:
    """Of the rare classes all that are taken for signs, and some of the other Han characters, as if they were higher; [D + 1, classes]."""
    crowd = np.array([_is_one_of_many(character) for character in rare], np.bool_)
    standing = layer[:, crowd][:, ::_STAND_FOR].copy()
    standing[-1] += _HIGHER
    return np.hstack([layer[:, ~crowd], standing])


def _is_one_of_many(character: str) -> bool:
    return character not in _LOOK_ALIKE and any(first <= ord(character[0]) < after for first, after in _HAN)


def _append(graph: onnx.GraphProto, features: str, common: NDArray[np.float32], sample: NDArray[np.float32]) -> None:
    graph.node.append(helper.make_node("Identity", [features], [FEATURES]))
    for name, layer in ((COMMON, common), ("sample", sample)):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(layer[:-1]), f"{name}.weights"))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(layer[-1]), f"{name}.bias"))
        graph.node.append(helper.make_node("MatMul", [features, f"{name}.weights"], [f"{name}.product"]))
        graph.node.append(helper.make_node("Add", [f"{name}.product", f"{name}.bias"], [name]))
    # The last product is what lets OpenVINO look for the highest in bfloat16: it leaves what follows the last one in float32.
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "one"))
    graph.node.append(helper.make_node("ReduceMax", ["sample"], ["highest"], axes=[2], keepdims=1))
    graph.node.append(helper.make_node("MatMul", ["highest", "one"], ["highest.once"]))
    graph.node.append(helper.make_node("ReduceMax", ["highest.once"], [RARE], axes=[2], keepdims=0))
    for name, shape in ((COMMON, ("N", "T", common.shape[1])), (RARE, ("N", "T")), (FEATURES, ("N", "T", len(common) - 1))):
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
