"""What is told of a request that does not fit its model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.errors import InvalidTensor
from inference_server.scheduler.validation import Signature

SPECS = (
    TensorSpec(name="ids", dtype=np.dtype(np.int64), shape=(-1, -1)),
    TensorSpec(name="image", dtype=np.dtype(np.float32), shape=(-1, 3, -1)),
)
OUTPUT = TensorSpec(name="y", dtype=np.dtype(np.float32), shape=(-1,))
BATCHED = Signature("net", inputs=SPECS, outputs=(OUTPUT,), max_batch_size=4)


def tensors(**changed: Any) -> dict[str, Any]:
    return {"ids": np.zeros((2, 7), np.int64), "image": np.zeros((2, 3, 9), np.float32)} | changed


def test_rows_bytes_and_bucket_are_measured() -> None:
    measured = BATCHED.check(tensors(), ("y",))
    assert (2, 2 * 7 * 8 + 2 * 27 * 4, ((7,), (3, 9))) == (measured.rows, measured.size, measured.bucket)


def test_requests_of_a_model_without_batches_count_as_one_row() -> None:
    assert 1 == Signature("net", inputs=SPECS, outputs=(OUTPUT,), max_batch_size=0).check(tensors(), ()).rows


def test_strings_count_with_their_length() -> None:
    texts = Signature("net", inputs=(TensorSpec(name="text", dtype=np.dtype(object), shape=(-1,)),), outputs=(), max_batch_size=4)
    assert 8 + 1000 == texts.check({"text": np.array([b"x" * 1000], object)}, ()).size


@pytest.mark.parametrize(
    ("changed", "outputs", "message"),
    [
        ({"mask": np.zeros(1)}, (), "model net: the request has mask, which it does not take; expected the inputs ids, image"),
        ({"ids": np.zeros((2, 7), np.int32)}, (), "model net: input ids is of type int32; expected int64"),
        ({"ids": np.zeros((2, 7), ">i8")}, (), "model net: input ids is of type >i8; expected int64"),
        (
            {"image": np.zeros((2, 4, 9), np.float32)},
            (),
            "input image has the shape [2, 4, 9]; expected [-1, 3, -1], where -1 takes any size",
        ),
        ({"image": np.zeros((2, 3), np.float32)}, (), "input image has the shape [2, 3]; expected [-1, 3, -1]"),
        ({"ids": np.zeros((3, 7), np.int64)}, (), "the inputs differ in their batch dimension: {'ids': 3, 'image': 2}"),
        ({}, ("z",), "model net has no output z; it has y"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(changed: dict[str, Any], outputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidTensor) as error:
        BATCHED.check(tensors(**changed), outputs)
    assert message in str(error.value)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InvalidTensor, match="the request lacks image; expected the inputs ids, image"):
        BATCHED.check({"ids": np.zeros((2, 7), np.int64)}, ())


@pytest.mark.parametrize("rows", [0, 5])
def test_a_batch_that_is_empty_or_too_large_is_refused(rows: int) -> None:
    with pytest.raises(InvalidTensor, match=f"a batch of {rows} rows; expected 1 to 4"):
        BATCHED.check({"ids": np.zeros((rows, 7), np.int64), "image": np.zeros((rows, 3, 9), np.float32)}, ())
