"""Tensors between the wire and numpy.

Elements travel either as bytes (`raw_input_contents`: little-endian, row-major, BOOL as one byte, each BYTES element after its
length in four bytes) or in typed lists. Raw elements become arrays without a copy; nothing here makes Python lists of numbers.
Source: Open Inference Protocol, "Tensor Data" and "Raw tensor data" (https://github.com/kserve/open-inference-protocol).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from inference import grpc_service_pb2 as wire

from inference_server.engine.port import Tensor
from inference_server.errors import InvalidTensor
from inference_server.service.open_inference.wire_format import Elements

_NUMPY_BY_DATATYPE: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        "BYTES": np.dtype(np.object_),
    }
)
_DATATYPE_BY_DTYPE = {dtype: datatype for datatype, dtype in _NUMPY_BY_DATATYPE.items()}
# For those of the other byte order, whose names are slow to tell.
_DATATYPE_BY_NUMPY = {dtype.name: datatype for datatype, dtype in _NUMPY_BY_DATATYPE.items()}

# The typed list of each element type; FP16 and BF16 have none.
_TYPED_FIELDS = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)

_LENGTH = struct.Struct("<I")
_MOST_DIMENSIONS = 32
_MANY_TEXTS = 4096
# A copy of so many costs less than to lend them.
_FEW_BYTES = 4096
_MOST_ELEMENTS = 2**40


def datatype_of(dtype: np.dtype[np.generic]) -> str:
    """The wire's name of a numpy type. Raises `InvalidTensor` for one that the protocol lacks."""
    known = _DATATYPE_BY_DTYPE.get(dtype)
    if known is not None:
        return known
    if dtype.kind in "OSU":
        return "BYTES"
    try:
        return _DATATYPE_BY_NUMPY[dtype.name]
    except KeyError as error:
        raise InvalidTensor(f"elements of type {dtype.name} cannot be sent: the protocol has no name for them.") from error


def decode_inputs(
    request: wire.ModelInferRequest, raw: Sequence[Elements] | None = None, shared: Mapping[str, Elements] | None = None
) -> dict[str, Tensor]:
    """The inputs of a request by name. Raises `InvalidTensor`.

    `raw` stands for the message's own raw_input_contents; `shared` are the elements of inputs that lie in shared memory. Arrays of raw
    elements share their memory and cannot be written to.
    """
    raw = request.raw_input_contents if raw is None else raw
    shared = shared or {}
    expected = len(request.inputs) - len(shared)
    if raw and len(raw) != expected:
        raise InvalidTensor(f"{len(raw)} raw_input_contents were sent for {expected} inputs; send one for each, in the inputs' order.")
    elements = iter(raw)
    tensors: dict[str, Tensor] = {}
    for tensor in request.inputs:
        if tensor.name in tensors:
            raise InvalidTensor(f"input {tensor.name} was sent twice; send it once.")
        if tensor.name in shared:
            tensors[tensor.name] = _decode_raw(tensor, shared[tensor.name])
        else:
            tensors[tensor.name] = _decode_raw(tensor, next(elements)) if raw else _decode_typed(tensor)
    return tensors


def encode(tensor: Tensor) -> Elements:
    """The elements of an output as raw bytes; many of fixed size share the array's memory where it is laid out as the wire wants."""
    if tensor.dtype.kind in "OSU":
        encoded = [element.encode() if isinstance(element, str) else bytes(element) for element in tensor.ravel().tolist()]
        return b"".join(part for element in encoded for part in (_LENGTH.pack(len(element)), element))
    little = tensor if tensor.dtype.byteorder != ">" else tensor.astype(tensor.dtype.newbyteorder("<"))
    return little.tobytes() if little.nbytes <= _FEW_BYTES else np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


def is_slow_to_encode(tensor: Tensor) -> bool:
    """Whether encoding goes element by element, for so many that it should leave the event loop."""
    return tensor.dtype.kind in "OSU" and tensor.size > _MANY_TEXTS


def is_slow_to_decode(request: wire.ModelInferRequest) -> bool:
    """Whether decoding goes element by element and should leave the event loop: typed lists and BYTES."""
    return any(tensor.datatype == "BYTES" or tensor.HasField("contents") for tensor in request.inputs)


def _decode_raw(tensor: wire.ModelInferRequest.InferInputTensor, raw: Elements) -> Tensor:
    if tensor.HasField("contents") and tensor.contents.ListFields():
        raise InvalidTensor(f"input {tensor.name} has both contents and raw_input_contents; send one of them.")
    dtype, shape, count = _layout(tensor)
    if tensor.datatype == "BYTES":
        return _text_array(tensor.name, _split_bytes(tensor.name, raw, count), shape)
    expected = count * dtype.itemsize
    if len(raw) != expected:
        raise InvalidTensor(
            f"input {tensor.name} has {len(raw)} bytes; {tensor.datatype} of shape {list(shape)} takes {expected}. Check both."
        )
    return np.frombuffer(raw, dtype=dtype).reshape(shape) if count else np.empty(shape, dtype)


def _decode_typed(tensor: wire.ModelInferRequest.InferInputTensor) -> Tensor:
    dtype, shape, count = _layout(tensor)
    field = _TYPED_FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidTensor(f"input {tensor.name} is {tensor.datatype}, which has no typed contents; send it in raw_input_contents.")
    elements = getattr(tensor.contents, field)
    for other, values in tensor.contents.ListFields():
        if other.name != field:
            raise InvalidTensor(
                f"input {tensor.name} is {tensor.datatype} and has {len(values)} elements in {other.name}; send them in {field}."
            )
    if len(elements) != count:
        raise InvalidTensor(f"input {tensor.name} has {len(elements)} elements in {field}; its shape {list(shape)} takes {count}.")
    if tensor.datatype == "BYTES":
        return _text_array(tensor.name, elements, shape)
    return _narrow(tensor, elements, dtype).reshape(shape)


def _narrow(tensor: wire.ModelInferRequest.InferInputTensor, elements: Sequence[float], dtype: np.dtype[Any]) -> Tensor:
    if dtype.kind not in "iu" or dtype.itemsize >= 4:
        return np.fromiter(elements, dtype=dtype, count=len(elements))
    wide = np.fromiter(elements, dtype=np.int64, count=len(elements))
    limits = np.iinfo(dtype)
    if wide.size and not (limits.min <= wide.min() and wide.max() <= limits.max):
        raise InvalidTensor(f"input {tensor.name} has elements outside {limits.min} to {limits.max}, the range of {tensor.datatype}.")
    return wide.astype(dtype)


def _layout(tensor: wire.ModelInferRequest.InferInputTensor) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and number of elements."""
    datatype, shape = tensor.datatype, tuple(tensor.shape)
    count = _count_of(shape)
    dtype = _NUMPY_BY_DATATYPE.get(datatype)
    if dtype is not None and count is not None:
        return dtype, shape, count
    if dtype is None:
        known = ", ".join(_NUMPY_BY_DATATYPE)
        raise InvalidTensor(f"input {tensor.name} has the datatype {tensor.datatype!r}; expected one of {known}.")
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0:
        raise InvalidTensor(
            f"input {tensor.name} has the shape {list(shape[:_MOST_DIMENSIONS])}; expected at most {_MOST_DIMENSIONS} sizes, none negative."
        )
    raise InvalidTensor(f"input {tensor.name} has the shape {list(shape)}, which is too large for any message; check the shape.")


@lru_cache(maxsize=1024)
def _count_of(shape: tuple[int, ...]) -> int | None:
    """Elements of a shape; None when it cannot be."""
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0:
        return None
    count = math.prod(shape)
    if count > _MOST_ELEMENTS or (count == 0 and math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS):
        return None
    return count


def _split_bytes(name: str, raw: Elements, count: int) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, position)[0] if start <= len(raw) else len(raw) + 1
        if end > len(raw):
            raise InvalidTensor(
                f"input {name} ends inside element {len(elements)}; expected four bytes of length before each element's bytes."
            )
        elements.append(bytes(raw[start:end]))
        position = end
    if len(elements) != count:
        raise InvalidTensor(f"input {name} has {len(elements)} elements; its shape takes {count}. Check the shape.")
    return elements


def _text_array(name: str, elements: Sequence[bytes], shape: tuple[int, ...]) -> Tensor:
    """Engines take text as str; ONNX's strings are UTF-8."""
    array = np.empty(len(elements), dtype=np.object_)
    try:
        array[:] = [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        raise InvalidTensor(f"input {name} has an element that is not UTF-8 ({error.reason}); models take text as UTF-8.") from error
    return array.reshape(shape)
