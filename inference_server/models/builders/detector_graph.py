"""The graph of a detector of text, made cheaper: the same function, with the answer brought to the size of the page last.

What OpenVINO computes in bfloat16 begins, seen from the output, at the first convolution; the transposed ones are none to it. The two that
bring the detector's answer to the size of the page, where every element costs the most, therefore ran in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float32]


def made_cheaper(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose transposed convolutions are replaced, where it ends in such; its inputs and outputs stay."""
    graph = _Graph(model)
    graph.drop_identities()
    graph.enlarge_by_rearranging()
    return graph.model()


class _Graph:
    """A graph that is rewritten part by part. Values are known by their names; each has one node that makes it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._nodes = list(self._model.graph.node)
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._model.graph.initializer}
        self._outputs = {output.name for output in self._model.graph.output}
        self._added: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """The whole model, checked."""
        graph = self._model.graph
        nodes = self._in_order()
        used = {name for node in nodes for name in node.input} | self._outputs
        initializers = [tensor for tensor in (*graph.initializer, *self._added) if tensor.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(initializers)
        onnx.checker.check_model(self._model)
        return self._model

    def drop_identities(self) -> None:
        """Nodes that change nothing stand between all others."""
        same: dict[str, str] = {}
        for node in self._nodes:
            inputs = [same.get(name, name) for name in node.input]
            del node.input[:]
            node.input.extend(inputs)
            if node.op_type == "Identity" and node.output[0] not in self._outputs:
                same[node.output[0]] = node.input[0]
        self._nodes = [node for node in self._nodes if node.output[0] not in same]

    def enlarge_by_rearranging(self) -> None:
        """ConvTranspose, Relu, ConvTranspose to one channel, Sigmoid: as convolutions at the small size, whose pixels are put in order.

        A transposed convolution of 2 x 2 with a step of 2 makes four pixels of each, which touch no other's.
        """
        for end in [node for node in self._nodes if node.op_type == "Sigmoid"]:
            last = self._biased(end.input[0], "ConvTranspose")
            relu = self._maker(last[0].input[0], "Relu") if last else None
            first = self._biased(relu.input[0], "ConvTranspose") if relu else None
            if last and first and all(_is_doubling(convolution) for convolution, _ in (first, last)):
                self._rearrange(first, last, end)

    def _rearrange(self, first: tuple[onnx.NodeProto, Array], last: tuple[onnx.NodeProto, Array], end: onnx.NodeProto) -> None:
        (one, one_bias), (two, two_bias) = first, last
        weight, narrow = self._constants[one.input[1]], self._constants[two.input[1]]
        channels, middle = weight.shape[:2]
        if narrow.shape[1] != 1:
            return
        # Of the first, one after the other, the channels of its four pixels.
        wide = weight.transpose(2, 3, 1, 0).reshape(4 * middle, channels, 1, 1)
        # Of the second, each of the sixteen pixels by row and column; it sees the channels of one of the four.
        pixels = np.zeros((2, 2, 2, 2, 2, 2, middle), np.float32)
        for row in range(2):
            for column in range(2):
                pixels[row, :, column, :, row, column] = narrow[:, 0].transpose(1, 2, 0)
        name = end.output[0]
        value = self._convolution(f"{name}.wide", one.input[0], wide, np.tile(one_bias, 4))
        value = self._node("Relu", [value], f"{name}.wide.relu")
        value = self._convolution(f"{name}.pixels", value, pixels.reshape(16, 4 * middle, 1, 1), np.tile(two_bias, 16))
        value = self._node("DepthToSpace", [value], f"{name}.page", blocksize=4)
        del end.input[:]
        end.input.append(value)

    def _biased(self, value: str, operator: str) -> tuple[onnx.NodeProto, Array] | None:
        """The node of an operator and the bias that is added to what it makes; None where `value` comes about otherwise."""
        added = self._maker(value, "Add")
        node = self._maker(added.input[0], operator) if added else None
        bias = self._constants.get(added.input[1]) if added else None
        return (node, bias.reshape(-1)) if node is not None and bias is not None else None

    def _maker(self, value: str, operator: str) -> onnx.NodeProto | None:
        return next((node for node in self._nodes if value in node.output and node.op_type == operator), None)

    def _convolution(self, name: str, value: str, weight: Array, bias: Array) -> str:
        inputs = [value, self._constant(f"{name}.weight", weight), self._constant(f"{name}.bias", bias)]
        return self._node("Conv", inputs, name, kernel_shape=[1, 1])

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self._constants[name] = np.asarray(value, np.float32)
        self._added.append(numpy_helper.from_array(self._constants[name], name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _in_order(self) -> list[onnx.NodeProto]:
        """The nodes that the outputs need, each after those that it needs."""
        makers = {name: node for node in self._nodes for name in node.output}
        ordered: dict[int, onnx.NodeProto] = {}
        waiting = [makers[name] for name in self._outputs]
        while waiting:
            node = waiting[-1]
            needed = [makers[name] for name in node.input if name in makers and id(makers[name]) not in ordered]
            waiting.extend(needed)
            if not needed:
                ordered.setdefault(id(waiting.pop()), node)
        return list(ordered.values())


def _is_doubling(convolution: onnx.NodeProto) -> bool:
    """Whether a transposed convolution makes four pixels of each, which touch no other's."""
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0] * 4, "dilations": [1, 1]}
    return (
        all(_attribute(convolution, name, value) == value for name, value in attributes.items())
        and _attribute(convolution, "group", 1) == 1
    )


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return helper.get_attribute_value(found) if found is not None else default
