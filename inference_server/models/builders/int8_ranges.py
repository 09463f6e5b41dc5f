"""The ranges in which OpenVINO computes those of a text model's convolutions in int8 that gain by it (`engine/int8`).

They lie in this package's data, an array [least, most and mean, channels] for each tensor: what these convolutions took of 60 rendered and
worn pages of 20 kinds, and a tenth more on either side (`scripts/measure_int8_ranges.py`). No channel's is narrower than half of what most
of the tensor's have: on scanned receipts, whose like was not among those pages, features erred by a third more without.

Left out are the recogniser's last one behind GELU, whose error nothing evens out, and of both models the first ones, of few channels, which
err the most or whose levels cost as much to make as they save.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from inference_server.models.shipped import int8_ranges

# The key of a file's metadata, as the engine reads it: a tensor's name, its least and highest values and its means a line.
_KEY = "lamina.int8_ranges"
# In the data, the SHA-256 of the weights that the ranges were measured with: others may take other values.
_WEIGHTS = "weights"


def tell_ranges(served: onnx.ModelProto, source: onnx.ModelProto, name: str) -> None:
    """Write a model's ranges into what is served of it, where they were measured with the weights of its source."""
    with np.load(io.BytesIO(int8_ranges(name))) as ranges:
        if _digest(source) != str(ranges[_WEIGHTS]):
            return
        entry = served.metadata_props.add()
        entry.key, entry.value = _KEY, "".join(_line(tensor, ranges[tensor]) for tensor in ranges if tensor != _WEIGHTS)


def packed(source: onnx.ModelProto, ranges: Mapping[str, NDArray[np.float16]]) -> bytes:
    """The data file that tells ranges, [least, most and mean, channels] by tensor, of the source's weights."""
    out, arrays = io.BytesIO(), dict[str, Any](ranges)
    np.savez_compressed(out, **{_WEIGHTS: np.array(_digest(source)), **arrays})
    return out.getvalue()


def measured_tensors(name: str) -> list[str]:
    """Those of a model whose ranges the data tell."""
    with np.load(io.BytesIO(int8_ranges(name))) as ranges:
        return [tensor for tensor in ranges if tensor != _WEIGHTS]


def _line(tensor: str, bounds: NDArray[np.float16]) -> str:
    return f"{tensor} {' '.join(','.join(f'{value:.4g}' for value in values) for values in bounds)}\n"


def _digest(model: onnx.ModelProto) -> str:
    digest = hashlib.sha256()
    for constant in model.graph.initializer:
        digest.update(constant.name.encode() + np.ascontiguousarray(numpy_helper.to_array(constant)).tobytes())
    return digest.hexdigest()
