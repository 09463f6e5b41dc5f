"""Calls that nobody in their right mind would make, against a real server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st
from inference import grpc_service_pb2 as wire
from lamina.v1 import documents_pb2, labs_pb2, slides_pb2

from tests.support.inference_server.fuzz_messages import KEY, PREFIX, valid_messages
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.models.small_models import sum_and_difference, text_identity, write_model
from tests.support.servers.trace_collector import trace_collector

_MODULES = (health_pb2, reflection_pb2, wire, slides_pb2, documents_pb2, labs_pb2)
# Statuses that a malformed request must never get, and those of a server that is gone or hangs.
_WRONG = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.DEADLINE_EXCEEDED})
_SECONDS = 20.0
_MOST_RESPONSES = 5


def is_wrong(call: Call, code: grpc.StatusCode, details: str) -> bool:
    """Whether an answer blames the server for what the caller did. That a model of the repository is broken, the server may say."""
    return code in _WRONG and not (call.method.path.endswith("/RepositoryModelLoad") and "cannot load model.onnx" in details)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of one service."""

    path: str
    request: type[Any]
    takes_stream: bool
    gives_stream: bool


@dataclass(frozen=True)
class Call:
    """One call, as the bytes that are sent."""

    method: Method
    messages: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()


def methods() -> tuple[Method, ...]:
    """Every method that the server offers."""
    return tuple(
        Method(
            path=f"/{service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            takes_stream=method.client_streaming,
            gives_stream=method.server_streaming,
        )
        for module in _MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    )


def write_repository(folder: Path) -> None:
    """Models that no request can keep busy for long, and one that is broken."""
    write_model(folder, "sum_and_difference", sum_and_difference(), "max_batch_size: 8\n")
    write_model(folder, "text_identity", text_identity(), "max_batch_size: 8\n")
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"this is no model")


@contextmanager
def fuzzed_server(models: Path, folder: Path) -> Iterator[ServerProcess]:
    """A server with all that can be called turned on: shared memory, with an object to register, and traces, which are thrown away."""
    made = shared_memory.SharedMemory(KEY, create=True, size=4096)
    try:
        with trace_collector(keeps=False) as collector:
            flags = ("--shared-memory", PREFIX, "--otlp-endpoint", collector.endpoint, "--max-shared-memory-regions", "64")
            with running_server(models, folder, *flags) as server:
                yield server
    finally:
        made.close()
        made.unlink()


_TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "sum_and_difference",
                "text_identity",
                "broken",
                "he_baseline",
                "a",
                "b",
                "text",
                "1",
                "999999999999999999999",
                "-1",
                "config",
            ),
            *("FP32", "BYTES", "BF16", "INT64", "BOOL", "../1", "a/../../b", "slide.png", "/etc/passwd", "file:///%00", "s3://b/..", "~"),
            *(
                "x" * 300,
                "é" * 200,
                "x" * 1025,
                "x" * 5000,
                "\x00",
                "{",
                '{"max_batch_size": -1}',
                '{"input": [{"dims": [9e99]}]}',
                "file:1/model.onnx",
            ),
        ]
    ),
    st.text(max_size=40),
)
# Of what maps hold: parameters, settings of logs, settings of traces.
_NAMES = (
    *("config", "priority", "timeout", "classification", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"),
    *("log_file", "log_format", "log_verbose_level", "trace_level", "trace_rate", "trace_count", "trace_mode", "log_frequency"),
)
_TRACE_PARENTS = (
    *(
        "",
        "00",
        "x" * 5000,
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    ),
    *("00-00000000000000000000000000000000-0000000000000000-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz"),
)
_METADATA = st.lists(
    st.one_of(
        st.tuples(st.just("traceparent"), st.sampled_from(_TRACE_PARENTS)),
        st.tuples(
            st.sampled_from(["traceparent", "tracestate", "baggage", "lamina-client"]), st.text(alphabet=" !=,;-abc019%", max_size=60)
        ),
    ),
    max_size=3,
).map(tuple)
_NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 4, 8, 127, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64 - 1]),
    st.integers(-(2**63), 2**64 - 1),
)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@st.composite
def built_messages(draw: st.DrawFn, kind: type[Any], depth: int = 0) -> Any:
    """A message that is well-formed and means nothing."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            _fill_map(draw, getattr(message, field.name), field, depth)
        elif field.is_repeated:
            values = [draw(_values(field, depth)) for _ in range(draw(st.integers(0, 3)))]
            if depth < 4 or field.type != FieldDescriptor.TYPE_MESSAGE:
                getattr(message, field.name).extend(values)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < 4:
                getattr(message, field.name).CopyFrom(draw(_values(field, depth)))
        else:
            setattr(message, field.name, draw(_values(field, depth)))
    return message


def _fill_map(draw: st.DrawFn, target: Any, field: FieldDescriptor, depth: int) -> None:
    value = field.message_type.fields_by_name["value"]
    names = [draw(_TEXTS)] if depth < 4 else []
    names += draw(st.lists(st.sampled_from(_NAMES), max_size=5))
    for name in names:
        if value.type == FieldDescriptor.TYPE_MESSAGE:
            target[name].CopyFrom(draw(_values(value, depth)))
        else:
            target[name] = draw(_values(value, depth))


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.cpp_type in _RANGES:
        least, most = _RANGES[field.cpp_type]
        return _NUMBERS.map(lambda number: min(max(number, least), most))
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return built_messages(GetMessageClass(field.message_type), depth + 1)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _TEXTS
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=64)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return st.one_of(st.sampled_from([0.0, 0.5, 1e-312, 1e-9, 1e-3, 1e300, float("inf"), float("nan")]), st.floats(width=32))


@st.composite
def broken_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with a few of them changed, lost, doubled or put in."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(damaged) - 1, 0)))
        damage = draw(st.sampled_from(["flip", "cut", "insert", "drop", "double", "varint"]))
        if damage == "flip" and damaged:
            damaged[place] ^= 1 << draw(st.integers(0, 7))
        elif damage == "cut":
            del damaged[place:]
        elif damage == "insert":
            damaged[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif damage == "drop":
            del damaged[place : place + draw(st.integers(1, 8))]
        elif damage == "double":
            damaged[place:place] = damaged[place : place + 32]
        else:
            damaged[place : place + 1] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    return bytes(damaged)


def calls() -> st.SearchStrategy[Call]:
    """Calls of every method: random bytes, messages that mean nothing, right ones, and right ones that were damaged."""
    valid = valid_messages()
    return st.sampled_from(methods()).flatmap(lambda method: _calls_of(method, valid))


def _calls_of(method: Method, valid: Sequence[Any]) -> st.SearchStrategy[Call]:
    right = [message.SerializeToString() for message in valid if isinstance(message, method.request)] or [b""]
    built = built_messages(method.request).map(lambda message: message.SerializeToString())
    one = st.one_of(st.sampled_from(right).flatmap(broken_bytes), built, built.flatmap(broken_bytes), st.binary(max_size=200))
    many = st.lists(one, max_size=5) if method.takes_stream else st.lists(one, min_size=1, max_size=1)
    return st.builds(lambda messages, metadata: Call(method, tuple(messages), metadata), many, _METADATA)


class Target:
    """A server that is called, and what it answered."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 2**30)])
        self.statuses: Counter[grpc.StatusCode] = Counter()

    def close(self) -> None:
        self._channel.close()

    def answer(self, call: Call) -> tuple[grpc.StatusCode, str]:
        """Make a call; the status that it ended with, OK for one that goes on."""
        code, details = self._status(call)
        self.statuses[code] += 1
        return code, details

    def _status(self, call: Call) -> tuple[grpc.StatusCode, str]:
        path = call.method.path
        try:
            if call.method.takes_stream:
                self._read(self._channel.stream_stream(path)(iter(call.messages), timeout=_SECONDS, metadata=call.metadata))
            elif call.method.gives_stream:
                stream = self._channel.unary_stream(path)(call.messages[0], timeout=_SECONDS, metadata=call.metadata)
                self._read(stream, 1 if path.endswith("/Watch") else _MOST_RESPONSES)
            else:
                self._channel.unary_unary(path)(call.messages[0], timeout=_SECONDS, metadata=call.metadata)
        except grpc.RpcError as error:
            return error.code(), str(error.details())
        return grpc.StatusCode.OK, ""

    @staticmethod
    def _read(stream: Any, most: int = _MOST_RESPONSES) -> None:
        # A watch of the health never ends by itself.
        for number, _ in enumerate(stream, start=1):
            if number >= most:
                break
        stream.cancel()
