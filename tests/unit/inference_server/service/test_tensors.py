from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from inference import grpc_service_pb2 as wire

from inference_server.errors import InvalidTensor
from inference_server.service.open_inference.tensors import datatype_of, decode_inputs, encode, is_slow_to_decode

DATATYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def _raw(datatype: str, shape: list[int], content: bytes) -> wire.ModelInferRequest:
    request = wire.ModelInferRequest(raw_input_contents=[content])
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


def _typed(datatype: str, shape: list[int], **contents: Any) -> wire.ModelInferRequest:
    request = wire.ModelInferRequest()
    request.inputs.add(name="x", datatype=datatype, shape=shape, contents=wire.InferTensorContents(**contents))
    return request


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_elements_of_each_type_become_an_array_of_that_type(datatype: str) -> None:
    expected = np.array([[0, 1, 1], [1, 0, 1]], dtype=DATATYPES[datatype])
    actual = decode_inputs(_raw(datatype, [2, 3], expected.tobytes()))["x"]
    assert (actual.dtype, actual.tolist()) == (expected.dtype, expected.tolist())


def test_raw_elements_are_not_copied() -> None:
    content = np.arange(8, dtype=np.float32).tobytes()
    tensor = decode_inputs(_raw("FP32", [8], content))["x"]
    assert (tensor.base is not None, tensor.flags.owndata, tensor.flags.writeable) == (True, False, False)


@pytest.mark.parametrize(
    ("datatype", "field", "elements"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-32768, 32767]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("FP32", "fp32_contents", [0.5, -2.0]),
        ("FP64", "fp64_contents", [0.1, -2.0]),
        ("BYTES", "bytes_contents", ["é", ""]),
    ],
)
def test_typed_elements_of_each_type_become_an_array_of_that_type(datatype: str, field: str, elements: list[Any]) -> None:
    actual = decode_inputs(_typed(datatype, [2, 1], **{field: [e.encode() if isinstance(e, str) else e for e in elements]}))["x"]
    assert (actual.shape, actual.ravel().tolist()) == ((2, 1), elements)
    assert actual.dtype == DATATYPES.get(datatype, np.object_)


def test_raw_bytes_elements_are_split_at_their_lengths() -> None:
    content = b"\x03\x00\x00\x00abc" + b"\x00\x00\x00\x00" + b"\x02\x00\x00\x00\xc3\xa9"
    assert decode_inputs(_raw("BYTES", [3], content))["x"].tolist() == ["abc", "", "é"]


def test_several_inputs_take_their_raw_elements_in_order() -> None:
    request = wire.ModelInferRequest(raw_input_contents=[b"\x01", b"\x02\x03"])
    request.inputs.add(name="b", datatype="UINT8", shape=[1])
    request.inputs.add(name="a", datatype="UINT8", shape=[2])
    assert {name: tensor.tolist() for name, tensor in decode_inputs(request).items()} == {"b": [1], "a": [2, 3]}


@pytest.mark.parametrize(("shape", "expected"), [([], ()), ([0, 4], (0, 4))])
def test_a_scalar_and_an_empty_tensor_are_tensors(shape: list[int], expected: tuple[int, ...]) -> None:
    content = np.zeros(expected, np.float32).tobytes()
    assert decode_inputs(_raw("FP32", shape, content))["x"].shape == expected


WRONG = {
    "too few raw bytes": (_raw("FP32", [2, 3], b"\0" * 20), "input x has 20 bytes; FP32 of shape [2, 3] takes 24"),
    "too many raw bytes": (_raw("FP32", [1], b"\0" * 5), "has 5 bytes"),
    "an unknown datatype": (_raw("FLOAT", [1], b"\0" * 4), "the datatype 'FLOAT'; expected one of BOOL"),
    "no datatype": (_raw("", [1], b"\0" * 4), "the datatype ''"),
    "typed BF16": (_typed("BF16", [1], fp32_contents=[1.0]), "raw_input_contents"),
    "a negative dimension": (_raw("FP32", [-1, 4], b"\0" * 16), "none negative"),
    "too many dimensions": (_raw("UINT8", [1] * 33, b"\0"), "at most 32"),
    "dimensions beyond any message": (_raw("UINT8", [0, 2**62, 2**62], b""), "too large for any message"),
    "a cut length": (_raw("BYTES", [1], b"\x03\x00"), "ends inside element 0"),
    "a cut element": (_raw("BYTES", [1], b"\x03\x00\x00\x00ab"), "ends inside element 0"),
    "text that is not UTF-8": (_raw("BYTES", [1], b"\x01\x00\x00\x00\xff"), "not UTF-8"),
    "too few elements in bytes": (_raw("BYTES", [2], b"\x01\x00\x00\x00a"), "has 1 elements; its shape takes 2"),
    "too few typed elements": (_typed("FP32", [2], fp32_contents=[1.0]), "1 elements in fp32_contents"),
    "typed elements in the wrong list": (_typed("FP32", [1], fp64_contents=[1.0]), "in fp64_contents; send them in fp32_contents"),
    "typed elements out of range": (_typed("INT8", [1], int_contents=[300]), "outside -128 to 127"),
    "typed elements of half precision": (_typed("FP16", [1], fp32_contents=[1.0]), "raw_input_contents"),
    "no elements": (_typed("FP32", [1]), "0 elements"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_tensor_is_told_what_is_wrong(case: str) -> None:
    request, message = WRONG[case]
    with pytest.raises(InvalidTensor) as caught:
        decode_inputs(request)
    assert message in str(caught.value)


def test_raw_and_typed_elements_together_are_refused() -> None:
    request = _typed("FP32", [1], fp32_contents=[1.0])
    request.raw_input_contents.append(b"\0" * 4)
    with pytest.raises(InvalidTensor, match="both contents and raw_input_contents"):
        decode_inputs(request)


def test_raw_elements_for_fewer_inputs_than_sent_are_refused() -> None:
    request = _raw("UINT8", [1], b"\0")
    request.inputs.add(name="y", datatype="UINT8", shape=[1])
    with pytest.raises(InvalidTensor, match="1 raw_input_contents were sent for 2 inputs"):
        decode_inputs(request)


def test_an_input_sent_twice_is_refused() -> None:
    request = wire.ModelInferRequest(raw_input_contents=[b"\0", b"\0"])
    request.inputs.add(name="x", datatype="UINT8", shape=[1])
    request.inputs.add(name="x", datatype="UINT8", shape=[1])
    with pytest.raises(InvalidTensor, match="sent twice"):
        decode_inputs(request)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_an_output_sent_back_as_input_is_the_same(datatype: str) -> None:
    output = np.array([[0, 1], [1, 1]], dtype=DATATYPES[datatype])
    request = _raw(datatype_of(output.dtype), list(output.shape), bytes(encode(output)))
    assert (datatype_of(output.dtype), decode_inputs(request)["x"].tolist()) == (datatype, output.tolist())


def test_outputs_of_text_are_bytes_with_lengths() -> None:
    assert encode(np.array(["é", ""], dtype=object)) == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"
    assert encode(np.array([b"\xff"], dtype=object)) == b"\x01\x00\x00\x00\xff"


@pytest.mark.parametrize("output", [np.arange(6, dtype=">i4"), np.arange(12, dtype="<i4")[::2] // 2])
def test_outputs_are_little_endian_and_row_major_whatever_their_memory(output: np.ndarray[Any, Any]) -> None:
    assert bytes(encode(output)) == np.arange(6, dtype="<i4").tobytes()


def test_outputs_of_any_layout_and_no_size_are_encoded() -> None:
    assert [len(encode(output)) for output in (np.zeros((0, 4), np.float32), np.array(1.5), np.eye(3, dtype=np.float32).T)] == [0, 8, 36]


def test_many_elements_are_lent_and_not_copied() -> None:
    output = np.arange(100_000, dtype=np.float32)
    assert np.shares_memory(np.frombuffer(encode(output), np.float32), output)


def test_a_type_without_a_name_in_the_protocol_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="complex64"):
        datatype_of(np.dtype(np.complex64))


@pytest.mark.parametrize(
    ("request_", "slow"),
    [(_raw("FP32", [1], b"\0" * 4), False), (_raw("BYTES", [0], b""), True), (_typed("FP32", [1], fp32_contents=[1.0]), True)],
)
def test_only_elements_that_are_walked_one_by_one_are_slow(request_: wire.ModelInferRequest, slow: bool) -> None:
    assert is_slow_to_decode(request_) == slow
