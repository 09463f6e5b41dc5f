"""What is wrong with a request gets the status that Triton gives it, in calls and in streams.

The codes are those of Triton's core (`infer_request.cc`, `model_lifecycle.cc`) and of its gRPC front (`grpc_utils.cc`, where NOT_FOUND and
INVALID_ARG become NOT_FOUND and INVALID_ARGUMENT; `common.cc` for versions).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from tests.support.inference_server.running_application import running_application
from tests.support.models.requests import failure, floats, infer_request

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_FOUND, INVALID, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE
Request = wire.ModelInferRequest
ROW = floats(1)


def _sum(change: Callable[[Request], object] = lambda request: None, **tensors: Any) -> Request:
    request = infer_request("sum_and_difference", **({"a": ROW, "b": ROW} | tensors))
    change(request)
    return request


def _version(version: str) -> Request:
    return _sum(lambda request: setattr(request, "model_version", version))


def _typed(count: int) -> Request:
    request = Request(model_name="sum_and_difference")
    for name in "ab":
        request.inputs.add(name=name, datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1.0] * count)
    return request


def _cut(request: Request) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


def _grow(request: Request) -> None:
    request.raw_input_contents[0] += b"\0"


def _both(request: Request) -> None:
    request.inputs[0].contents.fp32_contents.extend([1.0] * 4)


TABLE: dict[str, tuple[Request, grpc.StatusCode]] = {
    "an unknown model": (infer_request("none", a=ROW), NOT_FOUND),
    "an unknown model of an unknown version": (Request(model_name="none", model_version="7"), NOT_FOUND),
    "no model": (infer_request("", a=ROW), NOT_FOUND),
    "an unknown version": (_version("7"), NOT_FOUND),
    "the version 0": (_version("0"), NOT_FOUND),
    "a version that is no number": (_version("newest"), INVALID),
    "a version below 0": (_version("-1"), INVALID),
    "a version beyond all numbers": (_version("9" * 30), INVALID),
    "a model that could not be loaded": (infer_request("broken", a=ROW), UNAVAILABLE),
    "a missing input": (infer_request("sum_and_difference", a=ROW), INVALID),
    "no input": (Request(model_name="sum_and_difference"), INVALID),
    "an extra input": (_sum(c=ROW), INVALID),
    "another input in the place of one": (infer_request("sum_and_difference", a=ROW, c=ROW), INVALID),
    "an input that is sent twice": (_sum(lambda request: request.inputs[1].CopyFrom(request.inputs[0])), INVALID),
    "an output that there is not": (_sum(outputs=("product",)), INVALID),
    "a wrong datatype": (_sum(a=ROW.astype(np.float64)), INVALID),
    "a datatype of the same size": (_sum(lambda request: setattr(request.inputs[0], "datatype", "INT32")), INVALID),
    "a datatype that there is not": (_sum(lambda request: setattr(request.inputs[0], "datatype", "FP99")), INVALID),
    "no datatype": (_sum(lambda request: request.inputs[0].ClearField("datatype")), INVALID),
    "a wrong shape": (_sum(a=ROW[:, :3]), INVALID),
    "a wrong number of dimensions": (_sum(a=ROW[0]), INVALID),
    "a shape below 0": (_sum(lambda request: request.inputs[0].shape.__setitem__(0, -1)), INVALID),
    "more rows than the largest batch": (
        _sum(a=np.ones((9, 4), np.float32), b=np.ones((9, 4), np.float32)),
        INVALID,
    ),
    "different numbers of rows": (_sum(a=floats(1, 2)), INVALID),
    "a byte too few": (_sum(_cut), INVALID),
    "a byte too many": (_sum(_grow), INVALID),
    "fewer raw contents than inputs": (_sum(lambda request: request.raw_input_contents.pop()), INVALID),
    "more raw contents than inputs": (_sum(lambda request: request.raw_input_contents.append(b"")), INVALID),
    "raw and typed contents": (_sum(_both), INVALID),
    "an element too few": (_typed(3), INVALID),
    "an element too many": (_typed(5), INVALID),
    "text whose length lies": (
        Request(
            model_name="text_identity",
            inputs=[Request.InferInputTensor(name="text", datatype="BYTES", shape=[1])],
            raw_input_contents=[b"\xff\xff\xff\x7fab"],
        ),
        INVALID,
    ),
    "less text than the shape says": (
        Request(
            model_name="text_identity",
            inputs=[Request.InferInputTensor(name="text", datatype="BYTES", shape=[2])],
            raw_input_contents=[b"\x02\x00\x00\x00ab"],
        ),
        INVALID,
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    async with (
        running_application(small_repository, tmp_path_factory.mktemp("server")) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        yield wire_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("case", TABLE)
async def test_a_wrong_call_gets_tritons_status(stub: Any, case: str) -> None:
    request, code = TABLE[case]
    told, details = await failure(stub.ModelInfer(request))
    assert told is code, details


async def test_a_model_that_could_not_be_loaded_is_told_apart_from_a_server_that_is_away(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await stub.ModelInfer(TABLE["a model that could not be loaded"][0])
    assert dict(told.value.trailing_metadata() or ())["lamina-unavailable"] == "model"


@pytest.mark.parametrize("case", TABLE)
async def test_a_wrong_request_of_a_stream_gets_tritons_status_where_it_is_asked_for(stub: Any, case: str) -> None:
    request, code = TABLE[case]
    call = stub.ModelStreamInfer(iter([request]), metadata=(("triton_grpc_error", "true"),))
    assert (await failure(call.read()))[0] is code


@pytest.mark.parametrize("case", [case for case, (request, _) in TABLE.items() if request.raw_input_contents])
async def test_a_wrong_call_that_is_read_without_protobuf_gets_the_same_status(stub: Any, case: str) -> None:
    """Large messages are taken apart by hand."""
    request, code = TABLE[case]
    large = Request.FromString(request.SerializeToString())
    large.parameters["filler"].string_param = "x" * 70_000
    told, details = await failure(stub.ModelInfer(large))
    assert told is code, details


async def test_requests_that_are_right_are_answered(stub: Any) -> None:
    """Else the table above would prove nothing."""
    for request in (_sum(), _version("1"), _typed(4)):
        assert len((await stub.ModelInfer(request)).outputs) == 2
