"""Whatever bytes are sent, the server stays up, and never takes the blame for what the caller did. `make fuzz` does it for longer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from inference import grpc_service_pb2 as wire
from lamina.v1 import slides_pb2
from PIL import Image

from scripts.fuzz import Fuzz, judge
from tests.support.inference_server.broken_frames import sessions, throw
from tests.support.inference_server.fuzz_messages import valid_messages
from tests.support.inference_server.fuzzing import Call, Target, calls, fuzzed_server, is_wrong, methods, write_repository
from tests.support.inference_server.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("fuzz")
    write_repository(folder / "models")
    Image.new("RGB", (64, 48), (200, 180, 220)).save(folder / "slide.png")
    with fuzzed_server(folder / "models", folder) as process:
        process.wait_for("ready")
        yield process


@pytest.fixture(scope="module")
def target(server: ServerProcess) -> Iterator[Target]:
    target = Target(server.grpc)
    yield target
    target.close()


@settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_no_bytes_break_the_server(server: ServerProcess, target: Target, call: Call) -> None:
    code, details = target.answer(call)
    assert (is_wrong(call, code, details), server.process.poll()) == (False, None), (call.method.path, code, details)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(chunks=sessions([method.path for method in methods()]))
def test_no_frames_break_the_server(server: ServerProcess, target: Target, chunks: list[bytes]) -> None:
    throw(int(server.grpc.rpartition(":")[2]), chunks)
    live = next(method for method in methods() if method.path.endswith("/ServerLive"))
    assert target.answer(Call(live, (b"",)))[0] is grpc.StatusCode.OK
    assert [entry for entry in server.events() if entry["event"] in ("connection_broken", "call failed")] == []


def test_every_method_is_called_with_nothing_at_all(server: ServerProcess, target: Target) -> None:
    answers = {method.path: target.answer(call) for method in methods() for call in [Call(method, (b"",))]}
    assert {method.path: answers[method.path] for method in methods() if is_wrong(Call(method, ()), *answers[method.path])} == {}
    assert [
        path for path, (code, _) in answers.items() if path.endswith(("/Check", "/Watch", "/ServerLive")) and code is not grpc.StatusCode.OK
    ] == []
    assert server.process.poll() is None


def test_text_that_is_no_utf8_is_an_error_of_the_caller(target: Target) -> None:
    for method in methods():
        call = Call(method, (b"\x0a\x02\xff\xfe",))
        assert not is_wrong(call, *target.answer(call)), method.path


KNOWN: dict[str, list[Any]] = {
    "/lamina.v1.SlideService/GetSlideInfo": [
        slides_pb2.GetSlideInfoRequest(slide_uri=uri) for uri in ("G\x7f\x93", "a\x00b", "x" * 300, "https://[")
    ],
    "/inference.GRPCInferenceService/ModelMetadata": [wire.ModelMetadataRequest(name=name) for name in ("x" * 300, "\x00", "..")],
    "/inference.GRPCInferenceService/RepositoryModelLoad": [
        wire.RepositoryModelLoadRequest(model_name=name) for name in ("x" * 300, "\x00", "..")
    ],
}


@pytest.mark.parametrize("path", KNOWN)
def test_what_once_broke_a_call_is_answered_clearly(target: Target, path: str) -> None:
    method = next(method for method in methods() if method.path == path)
    for message in KNOWN[path]:
        call = Call(method, (message.SerializeToString(),))
        code, details = target.answer(call)
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED), details


def test_every_call_with_fields_that_must_fit_together_is_fuzzed_from_right_messages() -> None:
    covered = {type(message).DESCRIPTOR.full_name for message in valid_messages()}
    names = ("ModelInfer", "LogSettings", "TraceSetting", "RepositoryModelLoad", "SystemSharedMemoryRegister", "SystemSharedMemoryStatus")
    assert {f"inference.{name}Request" for name in names} <= covered


def test_right_settings_and_shared_memory_are_answered_so_that_their_paths_are_walked(target: Target) -> None:
    """Else what is fuzzed would be refused at the door."""
    by_request = {method.request.DESCRIPTOR.full_name: method for method in methods() if not method.takes_stream}
    answers = {}
    for message in valid_messages():
        name = type(message).DESCRIPTOR.full_name
        if name.startswith("inference.") and getattr(message, "model_name", "") != "none":
            answers.setdefault(name, set()).add(target.answer(Call(by_request[name], (message.SerializeToString(),)))[0])
    assert [name for name, codes in answers.items() if grpc.StatusCode.OK not in codes] == []


MIB = 2**20


@pytest.mark.parametrize(
    ("sizes", "ended", "failures", "status"),
    [
        ([100, 200, 300, *[300] * 7], None, [], 0),  # what is taken at the beginning is no growth
        ([100, 300, 300, *[300 + 10 * step for step in range(7)]], None, [], 1),
        ([100] * 10, None, ["/a.B/C INTERNAL"], 1),
        ([100] * 10, -11, [], 1),
        ([], None, [], 1),  # nothing was measured
    ],
)
def test_growth_failures_and_an_end_fail_the_fuzz(
    server: ServerProcess, sizes: list[int], ended: int | None, failures: list[str], status: int
) -> None:
    fuzz = Fuzz(server, seconds=10.0)
    fuzz.memory = [(second + 0.5, size * MIB) for second, size in enumerate(sizes)]
    fuzz.failures = failures
    assert judge(fuzz, ended) == status
