"""The graph of a detector of text, made cheaper: the same function, with as little as possible at the size of the page.

What OpenVINO computes in bfloat16 begins, seen from the output, at the first convolution; the transposed ones are none to it. The two that
bring the detector's answer to the size of the page, where every element costs the most, therefore ran in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from inference_server.models.builders.graph_rewriting import Array, GraphRewriter, attribute


def made_cheaper(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of which those parts are rewritten that are found; its inputs and outputs stay."""
    graph = _DetectorGraph(model)
    graph.drop_identities()
    graph.convolve_before_joining()
    graph.clip_convolutions()
    graph.gate_and_add_at_once()
    graph.join_at_half_the_size()
    graph.enlarge_by_rearranging()
    return graph.model()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One of the tensors that are joined for a convolution."""

    # The tensor, and what it is enlarged from, where it is.
    value: str
    enlarged: onnx.NodeProto | None
    # By how much; 0 where it is not.
    times: int
    # What the convolution does with it: [outputs, its channels, 3, 3].
    weight: Array


class _DetectorGraph(GraphRewriter):
    def gate_and_add_at_once(self) -> None:
        """A tensor times a gate, which lies between 0 and 1, and the tensor itself added: the tensor times a gate between 1 and 2."""
        for added in [node for node in self._nodes if node.op_type == "Add"]:
            for value, product in (added.input, tuple(added.input)[::-1]):
                gated = self._maker(product, "Mul")
                gates = [name for name in gated.input if name != value] if gated and value in gated.input else []
                gate = self._maker(gates[0], "Clip") if gates else None
                line = self._maker(gate.input[0], "Conv") if gate else None
                if gate is None or line is None:
                    continue
                self._replace(added, "Mul", [value, self._raised(gate, line)])
                break

    def _raised(self, gate: onnx.NodeProto, line: onnx.NodeProto) -> str:
        """A gate that is higher by 1: what is clipped, and the limits."""
        name = f"{gate.output[0]}.raised"
        weight, bias, least, most = (self._constants[value] for value in (*line.input[1:], *gate.input[1:]))
        value = self._convolution(f"{name}.line", line.input[0], weight, bias + np.float32(1))
        return self._node("Clip", [value, *self._limits(name, float(least) + 1, float(most) + 1)], name)

    def join_at_half_the_size(self) -> None:
        """Tensors of which all but one are enlarged, to the nearest pixel, to be joined for a convolution of 3 x 3.

        The enlarged ones are joined and convolved at half the size, for the four pixels that each pixel becomes.
        """
        for joined in [node for node in self._nodes if node.op_type == "Concat" and len(node.input) > 2]:
            users = self._users(joined.output[0])
            if len(users) == 1 and _keeps_size(users[0]) and len(users[0].input) == 2:
                parts = self._parts(joined, users[0])
                whole = [part for part in parts if part.enlarged is None]
                enlarged = [part for part in parts if part.enlarged is not None]
                if len(whole) == 1 and all(part.times % 2 == 0 for part in enlarged):
                    self._join_smaller(users[0], whole[0], enlarged)

    def _parts(self, joined: onnx.NodeProto, convolution: onnx.NodeProto) -> list[_Part]:
        weights = np.split(self._constants[convolution.input[1]], len(joined.input), axis=1)
        parts = []
        for value, weight in zip(joined.input, weights, strict=True):
            enlarged = self._maker(value, "Resize")
            times = self._times(enlarged) if enlarged else 0
            parts.append(_Part(value=value, enlarged=enlarged if times else None, times=times, weight=weight))
        return parts

    def _times(self, resize: onnx.NodeProto) -> int:
        """By how much a node enlarges both sides, repeating pixels; 0 where it does something else."""
        scales = self._constants.get(resize.input[2]) if len(resize.input) == 3 else None
        if attribute(resize, "mode", b"nearest") != b"nearest" or scales is None or scales.tolist()[:2] != [1, 1]:
            return 0
        height, width = scales.tolist()[2:]
        return int(width) if height == width == int(width) else 0

    def _join_smaller(self, convolution: onnx.NodeProto, whole: _Part, enlarged: list[_Part]) -> None:
        name = convolution.output[0]
        smaller = self._node(
            "Concat", [self._half(part.enlarged, part.times) for part in enlarged if part.enlarged], f"{name}.smaller", axis=1
        )
        weight = _for_four_pixels(np.concatenate([part.weight for part in enlarged], axis=1))
        pixels = self._node(
            "Conv", [smaller, self._constant(f"{name}.four", weight)], f"{name}.pixels", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        )
        large = self._node("DepthToSpace", [pixels], f"{name}.large", blocksize=2)
        own = self._node(
            "Conv", [whole.value, self._constant(f"{name}.own", whole.weight)], f"{name}.whole", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        )
        self._replace(convolution, "Add", [own, large])

    def _half(self, enlarged: onnx.NodeProto, times: int) -> str:
        """What is enlarged, at half the size that it is brought to."""
        if times == 2:
            return str(enlarged.input[0])
        resize = onnx.NodeProto()
        resize.CopyFrom(enlarged)
        resize.name = resize.output[0] = f"{enlarged.output[0]}.half"
        resize.input[2] = self._constant(f"{resize.name}.scales", np.array([1, 1, times / 2, times / 2], np.float32))
        self._nodes.append(resize)
        return resize.name

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


def _for_four_pixels(weight: Array) -> Array:
    """A convolution of 3 x 3 at twice the size, for each of the four pixels that a pixel becomes: [4 x outputs, channels, 3, 3]."""
    outputs, channels = weight.shape[:2]
    four = np.zeros((2, 2, outputs, channels, 3, 3), np.float32)
    # Beside a pixel's first half lies the second of the one before, beside its second the first of the next.
    places = ((0, 1, 1), (1, 1, 2))
    for row in range(2):
        for column in range(2):
            for y in range(3):
                for x in range(3):
                    four[row, column, :, :, places[row][y], places[column][x]] += weight[:, :, y, x]
    return four.reshape(4 * outputs, channels, 3, 3)


def _keeps_size(convolution: onnx.NodeProto) -> bool:
    """Whether a node is a convolution of 3 x 3 whose answer is as large as what it takes."""
    attributes = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1]}
    return convolution.op_type == "Conv" and _has(convolution, attributes)


def _is_doubling(convolution: onnx.NodeProto) -> bool:
    """Whether a transposed convolution makes four pixels of each, which touch no other's."""
    return _has(convolution, {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0] * 4, "dilations": [1, 1]})


def _has(convolution: onnx.NodeProto, attributes: dict[str, list[int]]) -> bool:
    return (
        all(attribute(convolution, name, value) == value for name, value in attributes.items()) and attribute(convolution, "group", 1) == 1
    )
