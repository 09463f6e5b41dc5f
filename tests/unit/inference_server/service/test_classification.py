from __future__ import annotations

import numpy as np
import pytest

from inference_server.errors import InvalidTensor
from inference_server.service.open_inference.classification import best_classes


def test_each_row_has_its_best_classes_best_first() -> None:
    scores = np.array([[0.5, 2.0, -1.0], [3.0, 1.0, 3.0]], np.float32)
    best = best_classes("y", scores, count=2, batched=True, labels=("cat", "dog"))
    assert best.tolist() == [["2.000000:1:dog", "0.500000:0:cat"], ["3.000000:0:cat", "3.000000:2"]]


def test_without_a_batch_the_whole_tensor_is_one_row() -> None:
    assert best_classes("y", np.array([[1, 5], [9, 2]], np.int32), count=9, batched=False).tolist() == ["9:2", "5:1", "2:3", "1:0"]


@pytest.mark.parametrize("scores", [np.array([["a"]], dtype=object), np.array([[True]]), np.zeros((1, 2), np.float16)])
def test_what_has_no_scores_has_no_classes(scores: np.ndarray) -> None:
    with pytest.raises(InvalidTensor, match="no classes"):
        best_classes("y", scores, count=1, batched=True)


def test_more_classes_than_can_be_sorted_are_refused() -> None:
    with pytest.raises(InvalidTensor, match="at most 1000000"):
        best_classes("y", np.zeros((1, 1_000_001), np.float32), count=1, batched=True)
