"""Graphs of ONNX that are rewritten part by part: the same function, at less cost where a runtime computes it node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float32]


class GraphRewriter:
    """A graph that is rewritten. Values are known by their names; each has one node that makes it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """`model` is copied."""
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._nodes = list(self._model.graph.node)
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._model.graph.initializer}
        self._outputs = {output.name for output in self._model.graph.output}
        self._added: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """The whole model, checked; its inputs and outputs are as they were."""
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

    def convolve_before_joining(self) -> None:
        """Two tensors of as many channels that are joined for one convolution: each is convolved, and the sum is the same.

        To join channels that lie beside each other in memory, a runtime copies pixel by pixel.
        """
        for joined in [node for node in self._nodes if node.op_type == "Concat" and len(node.input) == 2]:
            users = self._users(joined.output[0])
            if len(users) == 1 and users[0].op_type == "Conv" and len(users[0].input) == 2:
                self._convolve_each(joined, users[0])

    def _convolve_each(self, joined: onnx.NodeProto, convolution: onnx.NodeProto) -> None:
        weight, name = self._constants[convolution.input[1]], convolution.output[0]
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in convolution.attribute}
        halves = [
            self._node("Conv", [value, self._constant(f"{name}.weight{number}", half)], f"{name}.part{number}", **attributes)
            for number, (value, half) in enumerate(zip(joined.input, np.split(weight, 2, axis=1), strict=True))
        ]
        self._replace(convolution, "Add", halves)

    def clip_convolutions(self) -> None:
        """HardSigmoid behind a convolution: slope and middle go into the weights. Clip is left, which runtimes do in passing."""
        for gate in [node for node in self._nodes if node.op_type == "HardSigmoid"]:
            if found := self._biased(gate.input[0], "Conv"):
                convolution, bias = found
                slope, middle = attribute(gate, "alpha", 0.2), attribute(gate, "beta", 0.5)
                name = gate.output[0]
                weight = self._constants[convolution.input[1]] * np.float32(slope)
                value = self._convolution(f"{name}.line", convolution.input[0], weight, bias * np.float32(slope) + np.float32(middle))
                self._replace(gate, "Clip", [value, *self._limits(name, 0, 1)])

    def _limits(self, name: str, least: float, most: float) -> list[str]:
        return [self._constant(f"{name}.{key}", np.float32(value)) for key, value in (("least", least), ("most", most))]

    def _biased(self, value: str, operator: str) -> tuple[onnx.NodeProto, Array] | None:
        """The node of an operator and the bias that is added to what it makes; None where `value` comes about otherwise."""
        added = self._maker(value, "Add")
        node = self._maker(added.input[0], operator) if added else None
        bias = self._constants.get(added.input[1]) if added else None
        return (node, bias.reshape(-1)) if node is not None and bias is not None else None

    def _maker(self, value: str, operator: str) -> onnx.NodeProto | None:
        return next((node for node in self._nodes if value in node.output and node.op_type == operator), None)

    def _users(self, value: str) -> list[onnx.NodeProto]:
        return [node for node in self._nodes if value in node.input]

    def _convolution(self, name: str, value: str, weight: Array, bias: Array) -> str:
        """One of 1 x 1."""
        inputs = [value, self._constant(f"{name}.weight", weight), self._constant(f"{name}.bias", bias)]
        return self._node("Conv", inputs, name, kernel_shape=[1, 1])

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self._constants[name] = np.ascontiguousarray(value, np.float32).reshape(np.shape(value))
        self._added.append(numpy_helper.from_array(self._constants[name], name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _replace(self, node: onnx.NodeProto, operator: str, inputs: list[str]) -> None:
        """Have what a node makes made by another one."""
        self._nodes.remove(node)
        self._node(operator, inputs, node.output[0])

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


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node, or what it is where the node does not tell it."""
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return helper.get_attribute_value(found) if found is not None else default
