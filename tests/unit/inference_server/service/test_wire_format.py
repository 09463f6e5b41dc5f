"""Messages read and written by hand are those that protobuf reads and writes."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from inference import grpc_service_pb2 as wire

from inference_server.service.open_inference.wire_format import (
    InferResponse,
    StreamResponse,
    parse_request,
    serialize_response,
    serialize_stream_response,
)

LARGE = 70_000


def _parameter(chance: random.Random) -> wire.InferParameter:
    kinds = (
        {"bool_param": chance.random() < 0.5},
        {"int64_param": chance.randint(-(2**63), 2**63 - 1)},
        {"string_param": "é" * chance.randint(0, 200)},
        {"double_param": chance.random()},
        {"uint64_param": chance.randint(0, 2**64 - 1)},
    )
    return wire.InferParameter(**chance.choice(kinds))


def _random_request(seed: int) -> wire.ModelInferRequest:
    chance = random.Random(seed)
    request = wire.ModelInferRequest(
        model_name=chance.choice(["", "m", "a" * 300]), model_version=chance.choice(["", "1"]), id=chance.choice(["", "r-7"])
    )
    for number in range(chance.randint(0, 4)):
        request.parameters[f"p{number}"].CopyFrom(_parameter(chance))
    for number in range(chance.randint(0, 5)):
        tensor = request.inputs.add(
            name=f"x{number}", datatype="FP32", shape=[chance.randint(-1, 2**40) for _ in range(chance.randint(0, 4))]
        )
        if chance.random() < 0.3:
            tensor.contents.fp32_contents.extend(chance.random() for _ in range(chance.randint(0, 100)))
        if chance.random() < 0.3:
            tensor.parameters["p"].CopyFrom(_parameter(chance))
        request.raw_input_contents.append(chance.randbytes(chance.choice([0, 1, 127, 128, 20_000, LARGE])))
    for number in range(chance.randint(0, 3)):
        request.outputs.add(name=f"y{number}").parameters["classification"].int64_param = number
    return request


@pytest.mark.parametrize("seed", range(200))
def test_a_request_read_by_hand_is_what_protobuf_reads(seed: int) -> None:
    request = _random_request(seed)
    content = request.SerializeToString()
    parsed = parse_request(content)
    together = wire.ModelInferRequest()
    together.CopyFrom(parsed.message)
    together.ClearField("raw_input_contents")
    together.raw_input_contents.extend(map(bytes, parsed.raw))
    assert together == request
    assert (parsed.size, parsed.id) == (len(content), request.id)


def test_fields_in_any_order_and_unknown_fields_are_read() -> None:
    raw, later = (
        wire.ModelInferRequest(raw_input_contents=[b"x" * LARGE]),
        wire.ModelInferRequest(model_name="m", raw_input_contents=[b"y"]),
    )
    unknown = bytes([15 << 3 | 1]) + bytes(8) + bytes([15 << 3 | 5]) + bytes(4) + bytes([15 << 3 | 0, 0x80, 0x01])
    parsed = parse_request(raw.SerializeToString() + unknown + later.SerializeToString())
    assert (parsed.message.model_name, [len(part) for part in parsed.raw]) == ("m", [LARGE, 1])


def test_elements_of_a_large_request_are_not_copied() -> None:
    content = wire.ModelInferRequest(raw_input_contents=[b"x" * LARGE]).SerializeToString()
    part = parse_request(content).raw[0]
    assert isinstance(part, memoryview)
    assert part.obj is content


@pytest.mark.parametrize("seed", range(100))
def test_a_broken_large_request_is_refused_as_protobuf_refuses_it(seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(wire.ModelInferRequest(model_name="m", raw_input_contents=[b"\xff" * LARGE, b"x" * 100]).SerializeToString())
    for _ in range(chance.randint(1, 3)):
        content[chance.choice([*range(8), *range(LARGE, len(content))])] = chance.randint(0, 255)
    broken = bytes(content[: chance.choice([len(content), LARGE + chance.randint(0, 100)])])
    try:
        expected = wire.ModelInferRequest.FromString(broken)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse_request(broken)
        return
    parsed = parse_request(broken)
    assert (parsed.message.model_name, [*map(bytes, parsed.raw)]) == (expected.model_name, list(expected.raw_input_contents))


def test_a_large_request_of_very_many_fields_is_left_to_protobuf() -> None:
    request = wire.ModelInferRequest(raw_input_contents=[b""] * 100_000)
    assert len(parse_request(request.SerializeToString()).raw) == 100_000


def _response() -> InferResponse:
    message = wire.ModelInferResponse(model_name="m", id="r", outputs=[{"name": "y", "datatype": "FP32", "shape": [2]}])
    return InferResponse(message=message, raw=[b"12345678", memoryview(b"x" * LARGE), b""])


def test_a_response_written_by_hand_is_read_by_protobuf() -> None:
    read = wire.ModelInferResponse.FromString(serialize_response(_response()))
    assert (read.model_name, read.id, read.outputs[0].name) == ("m", "r", "y")
    assert list(read.raw_output_contents) == [b"12345678", b"x" * LARGE, b""]


def test_a_response_of_a_stream_written_by_hand_is_read_by_protobuf() -> None:
    read = wire.ModelStreamInferResponse.FromString(serialize_stream_response(StreamResponse(response=_response(), error="wrong")))
    assert (read.error_message, read.infer_response.id, len(read.infer_response.raw_output_contents)) == ("wrong", "r", 3)
