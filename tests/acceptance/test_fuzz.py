"""Whatever bytes are sent, the server stays up, and never takes the blame for what the caller did. `make fuzz` does it for longer."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from inference import grpc_service_pb2 as wire
from lamina.v1 import slides_pb2
from PIL import Image

from tests.support.broken_frames import sessions, throw
from tests.support.fuzzing import Call, Target, calls, is_wrong, methods, write_repository
from tests.support.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("fuzz")
    write_repository(folder / "models")
    Image.new("RGB", (64, 48), (200, 180, 220)).save(folder / "slide.png")
    with running_server(folder / "models", folder) as process:
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


KNOWN = {
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
