"""The ranges in which OpenVINO computes those of a text recogniser's convolutions in int8 that gain by it (`engine/int8`).

They have the least squared error of int8 on what these convolutions took of 90 batches of lines, of rendered and worn pages of 14 kinds.
Left out are those behind GELU whose values lie too close beside its least one to be told apart by 256 levels of the range, and the first
ones, of few channels, which are no faster in int8.
"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import numpy_helper

# The key of a file's metadata, as the engine reads it: a tensor's name, its least and its highest value a line.
_KEY = "lamina.int8_ranges"
# SHA-256 of the weights that they were measured with: others may take other values.
_WEIGHTS = "2592964559b2844bdf27a9516fc491afbda6babb7366e25af0317431b1655b2d"
_RANGES = {
    "Mul.15": (-0.8896, 0.88265),
    "Add.67": (-1.6768, 1.6637),
    "Mul.23": (-0.92288, 0.91567),
    "Add.91": (-1.4464, 1.4351),
    "Mul.31": (-0.64, 0.635),
    "Add.115": (-1.1341, 1.1252),
    "Add.125": (-2.2656, 2.2479),
    "Mul.42": (-0.7488, 0.74295),
    "Add.147": (-5.3632, 5.3213),
    "p2o.pd_op.gelu.6.0": (-0.1694, 1.709),
    "p2o.pd_op.gelu.8.0": (-0.1684, 2.218),
    "p2o.pd_op.gelu.10.0": (-0.1683, 3.134),
}


def tell_ranges(served: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Write the ranges into a served model's metadata, where they were measured with the weights of its source."""
    if _digest(source) == _WEIGHTS:
        entry = served.metadata_props.add()
        entry.key, entry.value = _KEY, "".join(f"{name} {least} {most}\n" for name, (least, most) in _RANGES.items())


def _digest(model: onnx.ModelProto) -> str:
    digest = hashlib.sha256()
    for constant in model.graph.initializer:
        digest.update(constant.name.encode() + np.ascontiguousarray(numpy_helper.to_array(constant)).tobytes())
    return digest.hexdigest()
