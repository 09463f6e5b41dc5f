"""The Open Inference Protocol, spoken with the whole server in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from inference import model_config_pb2

from inference_server.app import compose
from inference_server.application import Application
from inference_server.settings import Settings
from tests.support.models.held_runs import held_runs
from tests.support.models.requests import failure, floats, infer_request, steps
from tests.support.patience import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID, NOT_FOUND, UNAVAILABLE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def application(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Application]:
    settings = Settings.load(
        listen="127.0.0.1:0",
        http="127.0.0.1:0",
        models=small_repository,
        engine="onnxruntime",
        engine_cache=tmp_path_factory.mktemp("engines"),
        max_message_bytes=2**20,
        grace_seconds=0,
    )
    application = compose(settings)
    stop, hurry = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(application.run(stop, hurry))
    while not application.lifecycle.ready:
        await asyncio.sleep(0.02)
    yield application
    stop.set()
    await running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(application: Application) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return wire_grpc.GRPCInferenceServiceStub(channel)


def _request(model: str = "sum_and_difference", **tensors: np.ndarray[Any, Any]) -> wire.ModelInferRequest:
    return infer_request(model, **tensors)


async def test_the_server_is_live_ready_and_says_who_it_is(stub: Any) -> None:
    assert (await stub.ServerLive(wire.ServerLiveRequest())).live
    assert (await stub.ServerReady(wire.ServerReadyRequest())).ready
    metadata = await stub.ServerMetadata(wire.ServerMetadataRequest())
    assert (metadata.name, "binary_tensor_data" in metadata.extensions) == ("lamina", True)


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("sum_and_difference", "", True),
        ("sum_and_difference", "1", True),
        ("sum_and_difference", "2", False),
        ("broken", "", False),
        ("none", "", False),
    ],
)
async def test_a_model_is_ready_when_it_serves(stub: Any, name: str, version: str, ready: bool) -> None:
    assert (await stub.ModelReady(wire.ModelReadyRequest(name=name, version=version))).ready == ready


async def test_model_metadata_tells_tensors_versions_and_the_engine(stub: Any) -> None:
    metadata = await stub.ModelMetadata(wire.ModelMetadataRequest(name="sum_and_difference"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("sum_and_difference", ["1"], "onnxruntime:float32")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("a", "FP32", [-1, 4]),
        ("b", "FP32", [-1, 4]),
    ]
    assert [tensor.name for tensor in metadata.outputs] == ["sum", "difference"]


async def test_model_config_is_complete(stub: Any) -> None:
    config = (await stub.ModelConfig(wire.ModelConfigRequest(name="sum_and_difference"))).config
    assert (config.name, config.max_batch_size, config.HasField("dynamic_batching")) == ("sum_and_difference", 8, True)
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [
        ("a", model_config_pb2.TYPE_FP32, [4]),
        ("b", model_config_pb2.TYPE_FP32, [4]),
    ]


async def test_the_repository_index_tells_why_a_model_does_not_serve(stub: Any) -> None:
    models = {model.name: model for model in (await stub.RepositoryIndex(wire.RepositoryIndexRequest())).models}
    assert {name: model.state for name, model in models.items()} == {
        "broken": "UNAVAILABLE",
        "slow": "READY",
        "sum_and_difference": "READY",
        "text_identity": "READY",
    }
    assert "model.onnx" in models["broken"].reason


async def test_the_repository_index_can_be_of_ready_models_only(stub: Any) -> None:
    models = (await stub.RepositoryIndex(wire.RepositoryIndexRequest(ready=True))).models
    assert "broken" not in {model.name for model in models}


async def test_a_model_runs_on_raw_elements(stub: Any) -> None:
    request = _request(a=floats(1, 2), b=floats(3, 5))
    request.id = "r-7"
    response = await stub.ModelInfer(request)
    outputs = [np.frombuffer(content, np.float32).reshape(2, 4).tolist() for content in response.raw_output_contents]
    assert outputs == [floats(4, 7).tolist(), floats(-2, -3).tolist()]
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in response.outputs] == [
        ("sum", "FP32", [2, 4]),
        ("difference", "FP32", [2, 4]),
    ]
    assert (response.id, response.model_name, response.model_version) == ("r-7", "sum_and_difference", "1")
    assert response.parameters["engine"].string_param == "onnxruntime:float32"


async def test_a_model_runs_on_typed_elements_and_gives_only_the_outputs_asked_for(stub: Any) -> None:
    request = wire.ModelInferRequest(model_name="sum_and_difference")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP32", shape=[1, 4], contents=wire.InferTensorContents(fp32_contents=[1, 2, 3, 4]))
    request.outputs.add(name="difference")
    response = await stub.ModelInfer(request)
    assert ([tensor.name for tensor in response.outputs], list(response.raw_output_contents)) == (["difference"], [bytes(16)])


async def test_a_model_takes_and_gives_text(stub: Any) -> None:
    request = wire.ModelInferRequest(model_name="text_identity")
    request.inputs.add(name="text", datatype="BYTES", shape=[2], contents=wire.InferTensorContents(bytes_contents=["é".encode(), b""]))
    response = await stub.ModelInfer(request)
    assert (response.outputs[0].datatype, list(response.raw_output_contents)) == ("BYTES", [b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"])


WRONG = {
    "an unknown model": (_request("none", a=floats(1)), NOT_FOUND, "no model none"),
    "a model that could not be loaded": (_request("broken", a=floats(1)), UNAVAILABLE, "could not be loaded"),
    "a missing input": (_request(a=floats(1)), INVALID, "lacks b"),
    "an input that there is not": (_request(a=floats(1), b=floats(1), c=floats(1)), INVALID, "has c"),
    "a wrong shape": (_request(a=np.zeros((1, 3), np.float32), b=floats(1)), INVALID, "input a has the shape [1, 3]; expected [-1, 4]"),
    "a wrong type": (_request(a=floats(1).astype(np.float64), b=floats(1)), INVALID, "input a is of type float64; expected float32"),
    "too many rows": (_request(a=np.zeros((9, 4), np.float32), b=np.zeros((9, 4), np.float32)), INVALID, "expected 1 to 8"),
    "no elements": (wire.ModelInferRequest(model_name="sum_and_difference"), INVALID, "lacks a, b"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_request_is_told_what_is_wrong(stub: Any, case: str) -> None:
    request, status, message = WRONG[case]
    code, details = await failure(stub.ModelInfer(request))
    assert (code, message in details) == (status, True), details


async def test_an_unknown_version_and_output_are_told(stub: Any) -> None:
    request = _request(a=floats(1), b=floats(1))
    request.model_version = "7"
    assert (await failure(stub.ModelInfer(request)))[0] is NOT_FOUND
    request.model_version = ""
    request.outputs.add(name="product")
    code, details = await failure(stub.ModelInfer(request))
    assert (code, "no output product" in details) == (INVALID, True)


async def test_shared_memory_is_off_unless_the_operator_allows_it(stub: Any) -> None:
    request = _request(a=floats(1), b=floats(1))
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
    code, details = await failure(stub.ModelInfer(request))
    assert (code, "INFERENCE_SHARED_MEMORY" in details) == (grpc.StatusCode.FAILED_PRECONDITION, True)


@pytest.mark.parametrize("name", ["priority", "timeout"])
async def test_a_priority_or_timeout_that_is_no_number_is_refused(stub: Any, name: str) -> None:
    request = _request(a=floats(1), b=floats(1))
    request.parameters[name].string_param = "high"
    code, details = await failure(stub.ModelInfer(request))
    assert (code, f"parameter {name}" in details) == (INVALID, True)


async def test_a_message_too_big_is_refused_with_the_limit(stub: Any) -> None:
    code, details = await failure(stub.ModelInfer(_request(a=np.zeros((2**16, 4), np.float32), b=floats(1))))
    assert (code, "1048576" in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


async def test_a_timeout_in_the_parameters_ends_the_wait(stub: Any) -> None:
    with held_runs() as held:
        blocking = asyncio.ensure_future(stub.ModelInfer(_request("slow", steps=steps(1))))
        await held.begun()
        waiting = _request("slow", steps=steps(1))
        waiting.parameters["timeout"].int64_param = 50_000
        code, _ = await failure(stub.ModelInfer(waiting))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    await blocking


async def test_a_cancelled_call_frees_its_place_and_harms_nobody(application: Application, stub: Any) -> None:
    admission = application.models.admission
    with held_runs() as held:
        blocking = asyncio.ensure_future(stub.ModelInfer(_request("slow", steps=steps(1))))
        await held.begun()
        cancelled = stub.ModelInfer(_request("slow", steps=steps(1)))
        kept = asyncio.ensure_future(stub.ModelInfer(_request("slow", steps=steps(1))))
        await until(lambda: admission.requests == 3)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await until(lambda: admission.requests == 2)
    answers = await asyncio.wait_for(asyncio.gather(blocking, kept), 60)
    assert (True, ["slow", "slow"]) == (cancelled.cancelled(), [answer.model_name for answer in answers])


async def test_server_live_answers_while_a_model_computes(stub: Any) -> None:
    with held_runs() as held:
        computing = asyncio.ensure_future(stub.ModelInfer(_request("slow", steps=steps(1))))
        await held.begun()
        for _ in range(10):
            await stub.ServerLive(wire.ServerLiveRequest())
    await computing


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("", "SERVING"),
        ("live", "SERVING"),
        ("inference.GRPCInferenceService", "SERVING"),
        # Their models are not in this repository.
        ("lamina.v1.SlideService", "NOT_SERVING"),
        ("lamina.v1.DocumentService", "NOT_SERVING"),
        ("lamina.v1.LabService", "NOT_SERVING"),
    ],
)
async def test_health_tells_of_each_service(channel: grpc.aio.Channel, service: str, status: str) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status


async def test_reflection_lists_each_service_and_its_files(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelConfig"),
    ]
    services, file = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in services.list_services_response.service}
    expected = {
        "inference.GRPCInferenceService",
        "lamina.v1.SlideService",
        "lamina.v1.DocumentService",
        "lamina.v1.LabService",
        "grpc.health.v1.Health",
    }
    assert expected <= names
    assert len(file.file_descriptor_response.file_descriptor_proto) > 0


async def _get(application: Application, path: str) -> tuple[int, str]:
    host, _, port = application.http.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: lamina\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_http_tells_health_readiness_and_metrics(application: Application) -> None:
    assert await _get(application, "/healthz") == (200, "ok\n")
    status, body = await _get(application, "/readyz")
    assert (status, '"ready":true' in body, "broken:1" in body) == (200, True, True)
    degraded = json.loads(body)["degraded"]
    expected = {"SlideService": "he_baseline", "DocumentService": "ppocrv6_small_det", "LabService": "all_minilm_l6_v2"}
    assert {f"lamina.v1.{name}" for name in expected} == set(degraded)
    for name, model in expected.items():
        assert f"lacks its built-in model {model}" in degraded[f"lamina.v1.{name}"]
    status, body = await _get(application, "/metrics")
    assert status == 200
    assert "lamina_server_ready 1.0" in body
    assert (
        'lamina_model_engine_info{device="cpu",engine="onnxruntime",model="sum_and_difference",precision="float32",version="1"} 1.0' in body
    )


async def test_metrics_have_tritons_names_to_the_letter(application: Application, stub: Any) -> None:
    await stub.ModelInfer(_request(a=floats(1), b=floats(2)))
    _, body = await _get(application, "/metrics")
    assert "# TYPE nv_inference_request_success counter\n" in body
    labels = 'model="sum_and_difference",version="1"'
    assert f"nv_inference_request_success{{{labels}}}" in body
    assert 'nv_inference_request_failure{model="sum_and_difference",reason="REJECTED",version="1"} ' in body
    assert not [line for line in body.splitlines() if "nv_" in line and "_total" in line]
