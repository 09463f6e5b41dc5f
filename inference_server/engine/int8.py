"""Convolutions of OpenVINO's in int8, where a model's file tells the ranges of what they take.

Static quantisation (Jacob et al. 2018, arXiv:1712.05877): what a convolution takes has 256 levels, of one range or of one for each channel,
its weights 255 for each output. Channels' own scales go into the weights (Xiao et al. 2023, arXiv:2211.10438) and their own zeros into what
is added to the outputs, and with these what rounding the weights shifts in the mean (Nagel et al. 2019, arXiv:1906.04721).

The file tells, among its metadata, a tensor a line: its name, least values, highest values and means, each one number, or as many as
there are channels with commas between them. Other runtimes pass them over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset13

# The key of the metadata.
RANGES = "lamina.int8_ranges"
# Of a range: a level is a number that can be divided by.
_LEAST_WIDTH = 1e-30

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Between what a tensor's values lie: arrays of one number, or of one for each channel."""

    least: Array
    most: Array
    mean: Array


@dataclass(frozen=True, kw_only=True)
class _Levels:
    """Values are their level times `scale`, from `least` on: [1, channels or 1, 1 …]."""

    least: Array
    most: Array
    # The levels of these two.
    first: int
    last: int

    @property
    def scale(self) -> Array:
        return (self.most - self.least) / np.float32(self.last - self.first)


def ranges_of(model: Any) -> dict[str, Range]:
    """Ranges by tensor; none where the file tells none. Raises `RuntimeError` for what is no range."""
    place = ["framework", RANGES]
    told = str(model.get_rt_info(place).value) if model.has_rt_info(place) else ""
    try:
        return {name: _range(*fields) for name, *fields in (line.rsplit(None, 3) for line in told.splitlines())}
    except (TypeError, ValueError) as error:
        raise RuntimeError(
            f"{RANGES} is to tell a tensor's name, least values, higher highest ones and means a line, each one number or one a channel; "
            "`inference-server models build` writes those of the built-in models anew"
        ) from error


def _range(least: str, most: str, mean: str) -> Range:
    with np.errstate(over="ignore", invalid="ignore"):
        bounds = [np.array(field.split(","), np.float64).astype(np.float32) for field in (least, most, mean)]
        width = bounds[1] - bounds[0]
    if not np.isfinite(np.concatenate([*bounds, width])).all() or width.min() < _LEAST_WIDTH:
        raise ValueError("no range")
    return Range(least=bounds[0], most=bounds[1], mean=bounds[2])


def quantise(model: Any, ranges: Mapping[str, Range]) -> None:
    """Have the convolutions that take one of the tensors computed in int8. Raises `RuntimeError` for ranges of other channels."""
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    # Found before any is changed: a tensor's name stays with a convolution, whose readers then take what is added to it.
    found = [next((ranges[name] for name in each.input_value(0).get_names() if name in ranges), None) for each in convolutions]
    for convolution, taken in zip(convolutions, found, strict=True):
        if taken is not None and (weights := _constant(convolution.input_value(1))) is not None:
            _quantise_one(convolution, weights, taken)


def _quantise_one(convolution: Any, weights: Array, taken: Range) -> None:
    if any(bound.size not in (1, weights.shape[1]) for bound in (taken.least, taken.most, taken.mean)):
        raise RuntimeError(f"{RANGES} tells of another number of channels than the {weights.shape[1]} that {convolution.get_name()} takes")
    # What may be padded by zeros: these have a level of their own, the same in all channels.
    padding = convolution.get_attributes()
    is_padded = max(weights.shape[2:]) > 1 or any((*padding["pads_begin"], *padding["pads_end"]))
    levels = _around_zero(taken, weights.ndim) if is_padded else _from_least(taken, weights.ndim)
    users = list(convolution.output(0).get_target_inputs())
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = weights * levels.scale
        mean_level = (_by_channel(taken.mean, weights.ndim) - levels.least) / levels.scale
        _check_finite(convolution, scaled, weights * levels.least, *([] if is_padded else [weights * mean_level]))
    largest = np.maximum(np.abs(scaled).max(axis=tuple(range(1, scaled.ndim)), keepdims=True), np.finfo(np.float32).tiny)
    rounded = np.round(scaled / largest * 127) * (largest / 127)
    convolution.input(0).replace_source_output(_rounded(convolution.input_value(0), levels))
    convolution.input(1).replace_source_output(
        opset13.fake_quantize(opset13.constant(scaled), -largest, largest, -largest, largest, 255).output(0)
    )
    if not is_padded:
        added = (weights * levels.least + (scaled - rounded) * mean_level).sum(axis=tuple(range(1, weights.ndim)))
        total = opset13.add(convolution.output(0), opset13.constant(_by_channel(added, weights.ndim)))
        for user in users:
            user.replace_source_output(total.output(0))


def _check_finite(convolution: Any, *products: Array) -> None:
    """Raise `RuntimeError` where what is computed from ranges and weights is beyond what float32 holds, alone or summed up."""
    if not all(np.isfinite(np.abs(product).sum()) for product in products):
        raise RuntimeError(f"{RANGES} tells ranges or means that are too large for the weights of {convolution.get_name()}")


def _rounded(value: Any, levels: _Levels) -> Any:
    """A tensor's levels."""
    if len(value.get_target_inputs()) > 1:
        # What others take too is rounded by itself, which OpenVINO does with a change of layout before and after it. This changes
        # nothing that is left of the value, and what it computes so it rounds in passing.
        value = opset13.maximum(value, opset13.constant(np.full((1,) * levels.least.ndim, levels.least.min(), np.float32)))
    first, last = np.float32(levels.first), np.float32(levels.last)
    return opset13.fake_quantize(value, levels.least, levels.most, first, last, 256).output(0)


def _from_least(taken: Range, sides: int) -> _Levels:
    return _Levels(least=_by_channel(taken.least, sides), most=_by_channel(taken.most, sides), first=0, last=255)


def _around_zero(taken: Range, sides: int) -> _Levels:
    """Levels of which 0 is zero: all of them above it for what is never below, else half."""
    least, most = _by_channel(taken.least, sides), _by_channel(taken.most, sides)
    if least.min() >= 0:
        return _Levels(least=np.zeros_like(least), most=most, first=0, last=255)
    scale = np.maximum(-least / 128, most / 127)
    return _Levels(least=-128 * scale, most=127 * scale, first=-128, last=127)


def _by_channel(values: Array, sides: int) -> Array:
    return values.astype(np.float32).reshape(1, -1, *(1 for _ in range(sides - 2)))


def _constant(output: Any) -> Array | None:
    """A convolution's weights, which may lie in half the bytes; None where they are computed."""
    node = output.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.data, np.float32) if node.get_type_name() == "Constant" else None
