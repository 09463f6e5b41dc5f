"""Triton's classification extension: the best classes of an output, as `score:index` or `score:index:label`.

Source: "Classification Extension" (https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference_server.engine.port import Tensor
from inference_server.errors import InvalidTensor

_MOST_CLASSES = 1_000_000


def best_classes(name: str, scores: Tensor, *, count: int, batched: bool, labels: Sequence[str] = ()) -> Tensor:
    """The `count` best of each row, or of the whole tensor where it is no batch: strings of the shape [rows, count] or [count].

    Equal scores keep the order of their indices. Raises `InvalidTensor` for an output that has no scores.
    """
    if scores.dtype.kind not in "iuf" or scores.dtype == np.float16:
        raise InvalidTensor(f"output {name} is of type {scores.dtype}, which has no classes; take it whole.")
    rows = scores.reshape(scores.shape[0], -1) if batched else scores.reshape(1, -1)
    if rows.shape[1] > _MOST_CLASSES:
        raise InvalidTensor(f"output {name} has {rows.shape[1]} classes; at most {_MOST_CLASSES} can be sorted: take it whole.")
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    described = np.empty(best.shape, dtype=np.object_)
    for place, index in np.ndenumerate(best):
        described[place] = _described(rows[place[0], index], int(index), labels)
    return described if batched else described[0]


def _described(score: np.generic, index: int, labels: Sequence[str]) -> str:
    number = f"{float(score):f}" if score.dtype.kind == "f" else str(score)
    return f"{number}:{index}:{labels[index]}" if index < len(labels) else f"{number}:{index}"
