"""ModelInfer's messages without copies of their tensors.

A message's raw elements are most of its bytes, and protobuf copies them twice: into its own memory, and out of it. Of a large request the
header alone is given to protobuf; the elements stay where gRPC put them. A response's elements are joined once with its header.
Source: protobuf's encoding (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from inference import grpc_service_pb2 as wire

# Below this many bytes protobuf is the faster one.
_LARGE = 64 * 1024

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10
# With more, protobuf is faster again.
_MOST_FIELDS = 1024

_RAW_INPUT_CONTENTS = wire.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_RAW_OUTPUT_CONTENTS = wire.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_INFER_RESPONSE = wire.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | _LENGTH_DELIMITED

Elements = bytes | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class InferRequest:
    """A ModelInferRequest, its raw elements apart."""

    # Everything but the raw elements.
    message: wire.ModelInferRequest
    # As raw_input_contents: one for each input whose elements are not elsewhere.
    raw: Sequence[Elements]
    # Bytes of the whole message.
    size: int
    # Whether a tensor may lie in shared memory or be wanted as classes: those are told in parameters of tensors, which are slow to look at.
    has_extensions: bool = True

    @property
    def id(self) -> str:
        """The caller's name for the request."""
        return self.message.id


@dataclass(frozen=True, kw_only=True, slots=True)
class InferResponse:
    """A ModelInferResponse, its raw elements apart."""

    # Everything but the raw elements.
    message: wire.ModelInferResponse
    # As raw_output_contents: anything that holds bytes.
    raw: list[bytes | memoryview] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResponse:
    """A ModelStreamInferResponse: a result, or an error with the id of its request."""

    response: InferResponse
    error: str = ""


def parse_request(content: bytes | bytearray) -> InferRequest:
    """Read a request as gRPC received it. Raises `DecodeError`."""
    if len(content) >= _LARGE and (split := _without_raw(content)) is not None:
        header, raw = split
        message = wire.ModelInferRequest.FromString(header)
        return InferRequest(message=message, raw=raw, size=len(content), has_extensions=_has_extensions(header))
    message = wire.ModelInferRequest.FromString(bytes(content))
    return InferRequest(message=message, raw=message.raw_input_contents, size=len(content), has_extensions=_has_extensions(content))


def _has_extensions(content: bytes | bytearray) -> bool:
    """Whether the parameters' names are in a message, which they may be by chance."""
    return b"shared_memory_region" in content or b"classification" in content


def serialize_response(response: InferResponse) -> bytes:
    """A response as gRPC sends it; may be called once."""
    if sum(map(len, response.raw)) >= _LARGE:
        return b"".join(_parts(response))
    response.message.raw_output_contents.extend(map(bytes, response.raw))
    return response.message.SerializeToString()


def serialize_stream_response(response: StreamResponse) -> bytes:
    """A response of a stream as gRPC sends it."""
    error = wire.ModelStreamInferResponse(error_message=response.error).SerializeToString()
    parts = _parts(response.response)
    size = sum(len(part) for part in parts)
    return b"".join((error, _varint(_INFER_RESPONSE), _varint(size), *parts))


def _parts(response: InferResponse) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = [response.message.SerializeToString()]
    for elements in response.raw:
        parts += (_varint(_RAW_OUTPUT_CONTENTS), _varint(len(elements)), elements)
    return parts


def _without_raw(content: bytes | bytearray) -> tuple[bytes, list[memoryview]] | None:
    """The fields of a request that are not raw elements, and those that are, in their order; None of one with too many fields."""
    view = memoryview(content)
    header: list[memoryview] = []
    raw: list[memoryview] = []
    position, kept_from = 0, 0
    fields = 0
    while position < len(content):
        fields += 1
        if fields > _MOST_FIELDS:
            return None
        start = position
        tag, position = _read_varint(content, position)
        position, end = _field_end(content, tag, position)
        if tag == _RAW_INPUT_CONTENTS:
            header.append(view[kept_from:start])
            raw.append(view[position:end])
            kept_from = end
        position = end
    header.append(view[kept_from:])
    return b"".join(header), raw


def _field_end(content: bytes | bytearray, tag: int, position: int) -> tuple[int, int]:
    """Where a field's value begins and ends."""
    kind = tag & 7
    if kind == _LENGTH_DELIMITED:
        size, position = _read_varint(content, position)
        end = position + size
    elif kind == _VARINT:
        end = _read_varint(content, position)[1]
    elif kind in _FIXED_SIZES:
        end = position + _FIXED_SIZES[kind]
    else:  # groups, which no message of the protocol has
        raise DecodeError(f"a field of the unknown wire type {kind}")
    if end > len(content):
        raise DecodeError("the message ends inside a field")
    return position, end


def _read_varint(content: bytes | bytearray, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(content[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise DecodeError("the message ends inside a number, or the number is too long")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
