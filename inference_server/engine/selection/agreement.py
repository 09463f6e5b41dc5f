"""How far an engine's outputs are from the reference's.

The measure is the relative L2 error of each output, ‖a - r‖ / ‖r‖ over the whole tensor, and of these the largest. It bounds the
cosine from below, √(1 - error²), so a separate bound on the cosine would add nothing: 2 % means a cosine of at least 0.9998.
For outputs of integers, truth values and strings it is the share of elements that differ.
"""

from __future__ import annotations

import math

import numpy as np

from inference_server.engine.port import Tensor, Tensors

# bfloat16 errs by about 0.6 % on transformer encoders and convolution nets, dynamic int8 by 30 %.
DEFAULT_TOLERANCE = 0.02


def deviation(outputs: Tensors, reference: Tensors) -> float:
    """The largest error of any output; infinity where names, shapes or types differ, or where only one of the two is not a number."""
    if set(outputs) != set(reference):
        return math.inf
    return max((_error(outputs[name], reference[name]) for name in reference), default=0.0)


def _error(output: Tensor, reference: Tensor) -> float:
    if output.shape != reference.shape or output.dtype != reference.dtype:
        return math.inf
    if not reference.size:
        return 0.0
    if reference.dtype.kind != "f":
        return float(np.mean(output != reference))
    return _relative_error(output.astype(np.float64), reference.astype(np.float64))


def _relative_error(output: Tensor, reference: Tensor) -> float:
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(output)):
        return math.inf
    distance = float(np.linalg.norm(np.subtract(output[finite], reference[finite])))
    if distance == 0.0:
        return 0.0
    length = float(np.linalg.norm(reference[finite]))
    return distance / length if length else math.inf
