"""Convolutions of OpenVINO's in int8, where a model's file tells the range of what they take.

Static quantisation (Jacob et al. 2018, arXiv:1712.05877): what a convolution takes has one range of 256 levels, its weights one of 255 for
each output. The file tells the former among its metadata: a tensor's name, its least and its highest value a line. Other runtimes pass
them over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset13

# The key of the metadata.
RANGES = "lamina.int8_ranges"
_MOST = float(np.finfo(np.float32).max)

Range = tuple[float, float]


def ranges_of(model: Any) -> dict[str, Range]:
    """Ranges by tensor; none where the file tells none. Raises `RuntimeError` for what is no range."""
    place = ["framework", RANGES]
    told = str(model.get_rt_info(place).value) if model.has_rt_info(place) else ""
    try:
        ranges = {name: (float(least), float(most)) for name, least, most in (line.rsplit(None, 2) for line in told.splitlines())}
    except ValueError as error:
        raise RuntimeError(f"{RANGES} is to tell a tensor's name, its least and its highest value a line") from error
    if any(not -_MOST <= least <= 0 < most <= _MOST for least, most in ranges.values()):
        raise RuntimeError(f"{RANGES} is to tell ranges around 0")
    return ranges


def quantise(model: Any, ranges: Mapping[str, Range]) -> None:
    """Have the convolutions that take one of the tensors computed in int8."""
    for convolution in [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]:
        taken = convolution.input_value(0)
        found = next((ranges[name] for name in taken.get_names() if name in ranges), None)
        weights = _constant(convolution.input_value(1))
        if found is None or weights is None:
            continue
        least, most = map(np.float32, found)
        largest = np.maximum(np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True), np.finfo(np.float32).tiny)
        levels = opset13.fake_quantize(opset13.constant(weights), -largest, largest, -largest, largest, 255)
        convolution.input(0).replace_source_output(opset13.fake_quantize(taken, least, most, least, most, 256).output(0))
        convolution.input(1).replace_source_output(levels.output(0))


def _constant(output: Any) -> NDArray[np.float32] | None:
    """A convolution's weights, which may lie in half the bytes; None where they are computed."""
    node = output.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.data, np.float32) if node.get_type_name() == "Constant" else None
