"""Triton's extensions of the protocol, spoken with the whole server in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import onnx
import pytest
import pytest_asyncio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from onnx import TensorProto

from inference_server.application import Application
from tests.support.inference_server.running_application import running_application
from tests.support.models.held_runs import held_runs
from tests.support.models.requests import failure, floats, infer_request, steps
from tests.support.models.small_models import identity, slow, sum_and_difference, write_model, write_small_repository
from tests.support.patience import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNAVAILABLE, PRECONDITION = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION

KINDS = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}
LABELS = 'output [{ name: "y" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" }]\n'
SCORES = 'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\n' + LABELS


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_small_repository(folder)
    for name, (kind, _) in KINDS.items():
        write_model(folder, name.lower(), identity(kind), "max_batch_size: 8\n")
    write_model(folder, "scores", identity(TensorProto.FLOAT), f"max_batch_size: 8\n{SCORES}")
    (folder / "scores" / "labels.txt").write_text("cat\ndog\nowl\n")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def application(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Application]:
    async with running_application(repository, tmp_path_factory.mktemp("server")) as application:
        yield application


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(application: Application) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        yield wire_grpc.GRPCInferenceServiceStub(channel)


def _sum(**options: Any) -> wire.ModelInferRequest:
    return infer_request("sum_and_difference", a=floats(1), b=floats(2), **options)


async def _statistics(stub: Any, name: str) -> wire.ModelStatistics:
    return (await stub.ModelStatistics(wire.ModelStatisticsRequest(name=name))).model_stats[0]


@pytest.mark.parametrize("datatype", KINDS)
async def test_a_tensor_of_each_type_passes_a_model_unchanged(stub: Any, datatype: str) -> None:
    sent = np.array([[0, 1, 1, 0], [1, 1, 0, 0]]).astype(KINDS[datatype][1])
    response = await stub.ModelInfer(infer_request(datatype.lower(), x=sent))
    assert (response.outputs[0].datatype, response.raw_output_contents[0]) == (datatype, sent.tobytes())


async def test_text_of_any_length_passes_a_model_unchanged(stub: Any) -> None:
    texts = np.array(["é" * 5000, "", "x"], dtype=np.object_)
    response = await stub.ModelInfer(infer_request("text_identity", text=texts))
    assert list(response.outputs[0].shape) == [3]
    assert response.raw_output_contents[0] == infer_request("text_identity", text=texts).raw_input_contents[0]


async def test_large_tensors_pass_at_any_place_in_memory(application: Application) -> None:
    """Large requests are read without protobuf; names of different lengths put their elements at odd addresses."""
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        for id in ("", "a", "ab", "abc"):
            rows = np.random.default_rng(1).random((8, 4), dtype=np.float32)
            request = infer_request("sum_and_difference", id=id, a=rows, b=rows, outputs=("sum",))
            request.parameters["filler"].string_param = "x" * 70_000
            response = await stub.ModelInfer(request)
            assert (response.id, response.raw_output_contents[0]) == (id, (rows + rows).tobytes())


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [[b"0.900000:1:dog"], [b"2.000000:3"]]), (9, None), (2, [[b"0.900000:1:dog", b"0.500000:0:cat"], None])]
)
async def test_the_best_classes_of_an_output_are_given_with_their_labels(stub: Any, count: int, expected: list[Any] | None) -> None:
    request = infer_request("scores", x=np.array([[0.5, 0.9, 0.5, -1], [1, 1, 1, 2]], np.float32), outputs=("y",))
    request.outputs[0].parameters["classification"].int64_param = count
    response = await stub.ModelInfer(request)
    output, raw = response.outputs[0], response.raw_output_contents[0]
    assert (output.datatype, list(output.shape)) == ("BYTES", [2, min(count, 4)])
    for text in [text for row in expected or [] for text in row or []]:
        assert text in raw


REFUSED_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a priority that is no number": ("priority", {"string_param": "high"}),
    "a priority below nothing": ("priority", {"int64_param": -1}),
    "a timeout that Triton does not take": ("timeout", {"uint64_param": 5}),
    "a parameter kept for Triton": ("triton_anything", {"bool_param": True}),
    "a final response that is no truth value": ("triton_enable_empty_final_response", {"string_param": "yes"}),
    "an unknown parameter of a type that Triton does not take": ("mine", {"uint64_param": 5}),
    "a sequence that begins with text": ("sequence_start", {"string_param": "yes"}),
}


@pytest.mark.parametrize("case", REFUSED_PARAMETERS)
async def test_a_parameter_of_a_wrong_type_is_refused_by_name(stub: Any, case: str) -> None:
    name, value = REFUSED_PARAMETERS[case]
    request = _sum()
    request.parameters[name].CopyFrom(wire.InferParameter(**value))
    code, details = await failure(stub.ModelInfer(request))
    assert (code, name in details) == (INVALID, True)


async def test_parameters_that_nobody_knows_mean_nothing(stub: Any) -> None:
    request = _sum()
    request.parameters["priority"].uint64_param = 2
    request.parameters["timeout"].int64_param = 60_000_000
    request.parameters["sequence_id"].int64_param = 7
    request.parameters["mine"].double_param = 0.5
    assert (await stub.ModelInfer(request)).model_name == "sum_and_difference"


WRONG = {
    "an unknown model": (infer_request("none", a=floats(1)), NOT_FOUND),
    "an unknown model whose request is broken too": (infer_request("none", a=floats(1), outputs=("a", "a")), NOT_FOUND),
    "a model that could not be loaded": (infer_request("broken", a=floats(1)), UNAVAILABLE),
    "an input too few": (infer_request("sum_and_difference", a=floats(1)), INVALID),
    "an input too many": (infer_request("sum_and_difference", a=floats(1), b=floats(1), c=floats(1)), INVALID),
    "another type": (infer_request("sum_and_difference", a=floats(1).astype(np.float64), b=floats(1)), INVALID),
    "another shape": (infer_request("sum_and_difference", a=floats(1)[:, :3], b=floats(1)), INVALID),
    "another rank": (infer_request("sum_and_difference", a=floats(1)[0], b=floats(1)), INVALID),
    "different batches": (infer_request("sum_and_difference", a=floats(1), b=floats(1, 2)), INVALID),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_request_gets_tritons_status(stub: Any, case: str) -> None:
    request, code = WRONG[case]
    assert (await failure(stub.ModelInfer(request)))[0] is code


@pytest.mark.parametrize(("version", "code"), [("2", NOT_FOUND), ("newest", INVALID), ("0", NOT_FOUND), ("-1", INVALID)])
async def test_a_wrong_version_gets_tritons_status(stub: Any, version: str, code: grpc.StatusCode) -> None:
    request = _sum()
    request.model_version = version
    assert (await failure(stub.ModelInfer(request)))[0] is code
    asked = {"name": "sum_and_difference", "version": version}
    assert (await failure(stub.ModelMetadata(wire.ModelMetadataRequest(**asked))))[0] is code
    assert (await failure(stub.ModelConfig(wire.ModelConfigRequest(**asked))))[0] is code
    assert (await failure(stub.ModelStatistics(wire.ModelStatisticsRequest(**asked))))[0] is code


async def test_a_wrong_number_of_bytes_gets_tritons_status(stub: Any) -> None:
    request = _sum()
    request.raw_input_contents[0] += b"\0"
    assert (await failure(stub.ModelInfer(request)))[0] is INVALID


async def test_statistics_count_requests_rows_batches_failures_and_cancellations(stub: Any) -> None:
    before = await _statistics(stub, "uint8")
    assert (before.inference_count, before.last_inference, len(before.batch_stats)) in ((0, 0, 0), (2, before.last_inference, 1))
    await stub.ModelInfer(infer_request("uint8", x=np.ones((3, 4), np.uint8)))
    await failure(stub.ModelInfer(infer_request("uint8", x=np.ones((3, 5), np.uint8))))
    after = await _statistics(stub, "uint8")
    assert (after.name, after.version, after.inference_count - before.inference_count) == ("uint8", "1", 3)
    assert after.execution_count - before.execution_count == 1
    stats, earlier = after.inference_stats, before.inference_stats
    for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(stats, part).count - getattr(earlier, part).count == 1, part
    assert stats.success.ns >= stats.queue.ns + stats.compute_infer.ns > 0
    assert {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}[3] == 1
    assert after.last_inference > 1.7e12


async def test_statistics_tell_of_cancelled_requests(application: Application, stub: Any) -> None:
    admission = application.models.admission
    with held_runs() as held:
        blocking = asyncio.ensure_future(stub.ModelInfer(infer_request("slow", steps=steps(1))))
        await held.begun()
        cancelled = stub.ModelInfer(infer_request("slow", steps=steps(1)))
        await until(lambda: admission.requests == 2)
        cancelled.cancel()
        await until(lambda: admission.requests == 1)
    await asyncio.gather(blocking, cancelled, return_exceptions=True)
    response = (await _statistics(stub, "slow")).response_stats["0"]
    assert (response.cancel.count, response.fail.count) == (1, 1)


async def test_statistics_are_of_all_models_or_of_one_that_there_is(stub: Any) -> None:
    names = {entry.name for entry in (await stub.ModelStatistics(wire.ModelStatisticsRequest())).model_stats}
    assert {"slow", "scores", "bf16"} <= names
    assert (await failure(stub.ModelStatistics(wire.ModelStatisticsRequest(name="none"))))[0] is NOT_FOUND


async def _states(stub: Any, *, ready: bool = False) -> dict[str, tuple[str, str]]:
    index = await stub.RepositoryIndex(wire.RepositoryIndexRequest(ready=ready))
    return {model.name: (model.state, model.reason) for model in index.models}


def _load(name: str, **parameters: str) -> wire.RepositoryModelLoadRequest:
    request = wire.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        request.parameters[key].string_param = value
    return request


async def test_a_new_model_is_listed_loaded_served_unloaded_and_loaded_again(stub: Any, repository: Path) -> None:
    write_model(repository, "added", sum_and_difference())
    assert (await _states(stub))["added"] == ("", "")
    assert (await failure(stub.ModelInfer(infer_request("added", a=floats(1), b=floats(1)))))[0] is NOT_FOUND
    for _ in range(2):
        await stub.RepositoryModelLoad(_load("added"))
        assert (await _states(stub, ready=True))["added"] == ("READY", "")
        await stub.ModelInfer(infer_request("added", a=floats(1), b=floats(1)))
        await stub.RepositoryModelUnload(wire.RepositoryModelUnloadRequest(model_name="added"))
        code, details = await failure(stub.ModelInfer(infer_request("added", a=floats(1), b=floats(1))))
        assert (code, "added" in details) == (UNAVAILABLE, True)
        while (await _states(stub))["added"][0] == "UNLOADING":
            await asyncio.sleep(0.01)
        assert (await _states(stub))["added"] == ("UNAVAILABLE", "unloaded")
    assert "added" not in await _states(stub, ready=True)


async def test_a_model_is_loaded_with_the_configuration_that_is_sent(stub: Any, repository: Path) -> None:
    write_model(repository, "configured", sum_and_difference(), "max_batch_size: 8\n")
    await stub.RepositoryModelLoad(
        _load("configured", config=json.dumps({"max_batch_size": 2, "parameters": {"k": {"string_value": "v"}}}))
    )
    config = (await stub.ModelConfig(wire.ModelConfigRequest(name="configured"))).config
    assert (config.max_batch_size, config.parameters["k"].string_value) == (2, "v")
    rows = floats(1, 2, 3)
    assert (await failure(stub.ModelInfer(infer_request("configured", a=rows, b=rows))))[0] is INVALID
    await stub.RepositoryModelLoad(_load("configured"))
    await stub.ModelInfer(infer_request("configured", a=rows, b=rows))


async def test_a_load_that_fails_leaves_the_old_model_serving(stub: Any, repository: Path) -> None:
    folder = write_model(repository, "kept", sum_and_difference())
    await stub.RepositoryModelLoad(_load("kept"))
    (folder / "model.onnx").write_bytes(b"this is no model")
    code, _ = await failure(stub.RepositoryModelLoad(_load("kept")))
    assert code is grpc.StatusCode.INTERNAL
    await stub.ModelInfer(infer_request("kept", a=floats(1), b=floats(1)))
    state, reason = (await _states(stub))["kept"]
    assert (state, "goes on serving" in reason) == ("READY", True)


async def test_requests_in_flight_finish_on_the_old_model_while_the_new_one_serves(stub: Any, repository: Path) -> None:
    folder = write_model(repository, "replaced", slow())
    await stub.RepositoryModelLoad(_load("replaced"))
    with held_runs(first=1) as held:
        old = asyncio.ensure_future(stub.ModelInfer(infer_request("replaced", steps=steps(1))))
        await held.begun()
        onnx.save(sum_and_difference(), folder / "model.onnx")
        await stub.RepositoryModelLoad(_load("replaced"))
        await stub.ModelInfer(infer_request("replaced", a=floats(1), b=floats(1)))
    assert [output.name for output in (await old).outputs] == ["done"]


async def test_requests_in_flight_finish_when_their_model_is_unloaded(application: Application, stub: Any, repository: Path) -> None:
    write_model(repository, "leaving", slow())
    await stub.RepositoryModelLoad(_load("leaving"))
    with held_runs() as held:
        calls = [asyncio.ensure_future(stub.ModelInfer(infer_request("leaving", steps=steps(1)))) for _ in range(2)]
        await held.begun()
        await until(lambda: application.models.admission.requests == 2)
        await stub.RepositoryModelUnload(wire.RepositoryModelUnloadRequest(model_name="leaving"))
        assert (await _states(stub))["leaving"][0] == "UNLOADING"
    assert [answer.model_name for answer in await asyncio.gather(*calls)] == ["leaving"] * 2


WRONG_LOADS = {
    "a model that there is not": (_load("none"), NOT_FOUND, "none"),
    "a path": (_load("../models/slow"), NOT_FOUND, "no model"),
    "a configuration that is no JSON": (_load("slow", config="{"), INVALID, "JSON"),
    "a configuration of something else": (_load("slow", config='{"colour": "red"}'), INVALID, "colour"),
    "a configuration that does not fit": (_load("scores", config='{"max_batch_size": -4}'), PRECONDITION, "max_batch_size"),
    "a file": (_load("slow", **{"file:1/model.onnx": "x"}), INVALID, "file:1/model.onnx"),
}


@pytest.mark.parametrize("case", WRONG_LOADS)
async def test_a_wrong_load_is_told_what_is_wrong_and_changes_nothing(stub: Any, case: str) -> None:
    request, code, message = WRONG_LOADS[case]
    ready = await _states(stub, ready=True)
    told, details = await failure(stub.RepositoryModelLoad(request))
    assert (told, message in details) == (code, True), details
    assert set(await _states(stub, ready=True)) == set(ready)


async def test_a_model_that_there_is_not_cannot_be_unloaded(stub: Any) -> None:
    assert (await failure(stub.RepositoryModelUnload(wire.RepositoryModelUnloadRequest(model_name="none"))))[0] is NOT_FOUND


async def test_log_settings_are_read_and_changed(stub: Any) -> None:
    request = wire.LogSettingsRequest()
    before = await stub.LogSettings(request)
    assert (before.settings["log_verbose_level"].uint32_param, before.settings["log_warning"].bool_param) == (0, True)
    request.settings["log_verbose_level"].uint32_param = 1
    request.settings["log_info"].bool_param = False
    after = await stub.LogSettings(request)
    assert (after.settings["log_verbose_level"].uint32_param, after.settings["log_info"].bool_param) == (1, False)
    request.settings["log_verbose_level"].uint32_param = 0
    request.settings["log_info"].bool_param = True
    assert await stub.LogSettings(request) == before


UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
REFUSED_LOG_SETTINGS: dict[str, tuple[str, dict[str, Any], grpc.StatusCode]] = {
    "another file": ("log_file", {"string_param": "/tmp/x"}, UNIMPLEMENTED),
    "another format": ("log_format", {"string_param": "default"}, UNIMPLEMENTED),
    "a format that is no text": ("log_format", {"bool_param": True}, UNIMPLEMENTED),
    "text for a truth value": ("log_info", {"string_param": "yes"}, INVALID),
    "a truth value for a number": ("log_verbose_level", {"bool_param": True}, INVALID),
    "nothing": ("log_error", {}, INVALID),
    "one that Triton has not either": ("log_colour", {"bool_param": True}, INVALID),
}


@pytest.mark.parametrize("case", REFUSED_LOG_SETTINGS)
async def test_log_settings_that_are_not_honoured_are_refused_by_name_and_change_nothing(stub: Any, case: str) -> None:
    name, value, status = REFUSED_LOG_SETTINGS[case]
    before = await stub.LogSettings(wire.LogSettingsRequest())
    changes = {name: wire.LogSettingsRequest.SettingValue(**value), "log_warning": wire.LogSettingsRequest.SettingValue(bool_param=False)}
    code, details = await failure(stub.LogSettings(wire.LogSettingsRequest(settings=changes)))
    assert (code, name in details) == (status, True)
    assert await stub.LogSettings(wire.LogSettingsRequest()) == before


async def test_log_settings_tell_all_that_triton_tells(stub: Any) -> None:
    settings = (await stub.LogSettings(wire.LogSettingsRequest())).settings
    assert {name: value.WhichOneof("parameter_choice") for name, value in settings.items()} == {
        "log_file": "string_param",
        "log_format": "string_param",
        "log_verbose_level": "uint32_param",
        "log_info": "bool_param",
        "log_warning": "bool_param",
        "log_error": "bool_param",
    }
    # What is told can be sent back.
    told_back = wire.LogSettingsRequest(settings={name: _sent(value) for name, value in settings.items()})
    assert (await stub.LogSettings(told_back)).settings == settings


def _sent(value: wire.LogSettingsResponse.SettingValue) -> wire.LogSettingsRequest.SettingValue:
    return wire.LogSettingsRequest.SettingValue.FromString(value.SerializeToString())


async def test_traces_are_off_and_cannot_be_turned_on_where_they_are_sent_nowhere(stub: Any) -> None:
    request = wire.TraceSettingRequest()
    assert list((await stub.TraceSetting(request)).settings["trace_level"].value) == ["OFF"]
    request.settings["trace_level"].value.append("OFF")
    await stub.TraceSetting(request)
    request.settings["trace_level"].value[:] = ["TIMESTAMPS"]
    code, details = await failure(stub.TraceSetting(request))
    assert (code, "INFERENCE_OTLP_ENDPOINT" in details) == (PRECONDITION, True)
    code, details = await failure(stub.TraceSetting(wire.TraceSettingRequest(settings={"trace_rate": {"value": ["1"]}})))
    assert (code, "trace_rate" in details) == (PRECONDITION, True)
    assert (await failure(stub.TraceSetting(wire.TraceSettingRequest(model_name="none"))))[0] is NOT_FOUND


async def test_cuda_memory_is_refused(stub: Any) -> None:
    request = wire.CudaSharedMemoryRegisterRequest(name="region", raw_handle=b"x" * 64, byte_size=64)
    assert (await failure(stub.CudaSharedMemoryRegister(request)))[0] is PRECONDITION
    assert (await failure(stub.CudaSharedMemoryStatus(wire.CudaSharedMemoryStatusRequest(name="region"))))[0] is PRECONDITION
    assert len((await stub.CudaSharedMemoryStatus(wire.CudaSharedMemoryStatusRequest())).regions) == 0
    await stub.CudaSharedMemoryUnregister(wire.CudaSharedMemoryUnregisterRequest())


async def test_models_and_settings_cannot_be_changed_where_the_operator_does_not_allow_it(small_repository: Path, tmp_path: Path) -> None:
    async with (
        running_application(small_repository, tmp_path, model_control="none") as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        unload = wire.RepositoryModelUnloadRequest(model_name="slow")
        logs = wire.LogSettingsRequest(settings={"log_info": wire.LogSettingsRequest.SettingValue(bool_param=False)})
        traces = wire.TraceSettingRequest(settings={"trace_level": {"value": ["OFF"]}})
        load = stub.RepositoryModelLoad(_load("slow"))
        for call in (load, stub.RepositoryModelUnload(unload), stub.LogSettings(logs), stub.TraceSetting(traces)):
            code, details = await failure(call)
            assert (code, "INFERENCE_MODEL_CONTROL" in details) == (PRECONDITION, True)
        await stub.LogSettings(wire.LogSettingsRequest())
        await stub.TraceSetting(wire.TraceSettingRequest())
        await stub.ModelInfer(infer_request("slow", steps=steps(1)))
