"""ModelStreamInfer, spoken with the whole server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server.application import Application
from inference_server.service.lifecycle import Phase
from tests.support.inference_server.running_application import running_application
from tests.support.models.held_runs import held_runs
from tests.support.models.requests import failure, floats, infer_request, steps
from tests.support.patience import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def application(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Application]:
    async with running_application(small_repository, tmp_path_factory.mktemp("server"), max_stream_requests=4) as application:
        yield application


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(application: Application) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        yield wire_grpc.GRPCInferenceServiceStub(channel)


def _sum(value: float, *, id: str = "") -> wire.ModelInferRequest:
    return infer_request("sum_and_difference", id=id, outputs=("sum",), a=floats(value), b=floats(value))


def _slow(count: int, *, id: str = "") -> wire.ModelInferRequest:
    return infer_request("slow", id=id, steps=steps(count))


async def _all(stub: Any, *requests: wire.ModelInferRequest, **options: Any) -> list[wire.ModelStreamInferResponse]:
    return [response async for response in stub.ModelStreamInfer(iter(requests), **options)]


def _waiting(application: Application, model: str = "slow") -> tuple[int, int]:
    """Requests that wait or run, and the batches that were run."""
    statistics = application.models.statistics(model)[0]
    return application.models.admission.requests, statistics.execution_count


async def test_each_request_of_a_stream_is_answered_with_its_id_and_marked_as_final(stub: Any) -> None:
    responses = await _all(stub, *(_sum(value, id=f"r{value}") for value in range(20)))
    answers = {answer.infer_response.id: answer.infer_response for answer in responses}
    assert [answer.error_message for answer in responses] == [""] * 20
    assert {id: np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for id, answer in answers.items()} == {
        f"r{value}": 2 * value for value in range(20)
    }
    assert all(answer.parameters["triton_final_response"].bool_param for answer in answers.values())


async def test_an_answer_is_sent_when_it_is_there(stub: Any) -> None:
    call = stub.ModelStreamInfer()
    with held_runs(first=1) as held:
        await call.write(_slow(1, id="late"))
        await held.begun()
        await call.write(_sum(1, id="soon"))
        assert (await call.read()).infer_response.id == "soon"
    assert (await call.read()).infer_response.id == "late"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_requests_without_an_id_are_answered_in_their_order(stub: Any) -> None:
    responses = await _all(stub, _slow(1000), _sum(1), _sum(2, id="named"), _sum(3))
    named = [answer for answer in responses if answer.infer_response.id]
    others = [answer.infer_response for answer in responses if not answer.infer_response.id]
    assert (len(named), [answer.model_name for answer in others]) == (1, ["slow", "sum_and_difference", "sum_and_difference"])
    assert [np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for answer in others[1:]] == [2, 6]


async def test_an_error_answers_its_request_and_the_stream_goes_on(stub: Any) -> None:
    wrong = infer_request("sum_and_difference", id="wrong", a=floats(1))
    unknown = infer_request("none", id="unknown", a=floats(1))
    responses = {answer.infer_response.id: answer for answer in await _all(stub, wrong, unknown, _sum(1, id="right"))}
    assert "lacks b" in responses["wrong"].error_message
    assert "no model none" in responses["unknown"].error_message
    assert (responses["right"].error_message, len(responses["right"].infer_response.outputs)) == ("", 1)


async def test_a_client_may_ask_that_an_error_ends_the_stream_with_its_status(stub: Any) -> None:
    call = _all(stub, infer_request("none", a=floats(1)), metadata=(("triton_grpc_error", "true"),))
    assert (await failure(call))[0] is grpc.StatusCode.NOT_FOUND


async def test_empty_final_responses_may_be_asked_for(stub: Any) -> None:
    request = _sum(1)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    assert len(await _all(stub, request)) == 1


async def test_a_cancelled_stream_frees_its_places_in_the_queue_at_once(application: Application, stub: Any) -> None:
    with held_runs() as held:
        call = stub.ModelStreamInfer()
        for number in range(4):
            await call.write(_slow(1, id=str(number)))
        await held.begun()
        await until(lambda: _waiting(application)[0] == 4)
        runs_before = _waiting(application)[1]
        call.cancel()
        # While the one still runs.
        await until(lambda: _waiting(application)[0] <= 1)
    await until(lambda: _waiting(application)[0] == 0 and _waiting(application)[1] > runs_before)
    assert (runs_before + 1, 1) == (_waiting(application)[1], held.count)


async def test_no_more_requests_of_a_stream_are_taken_than_the_bound_allows(application: Application, stub: Any) -> None:
    before = application.models.statistics("slow")[0].success.count
    call = stub.ModelStreamInfer(iter([_slow(200, id=str(number)) for number in range(9)]))
    most = 0
    ids = []
    async for response in call:
        ids.append(response.infer_response.id)
        most = max(most, application.models.admission.requests)
    assert (sorted(ids), most <= 4) == ([str(number) for number in range(9)], True)
    assert application.models.statistics("slow")[0].success.count - before == 9


async def test_bytes_that_are_no_message_end_the_stream_after_what_came_before(application: Application) -> None:
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
            iter([_sum(1, id="a").SerializeToString(), b"\xff"])
        )
        first = wire.ModelStreamInferResponse.FromString(await call.read())
        assert first.infer_response.id == "a"
        assert (await failure(call.read()))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_asks_nothing_does_not_hold_the_shutdown_up(small_repository: Path, tmp_path: Path) -> None:
    async with (
        running_application(small_repository, tmp_path, drain_seconds=600) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        call: Any = wire_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        with held_runs() as held:
            await call.write(_slow(1, id="last"))
            await held.begun()
            application.lifecycle.advance(Phase.DRAINING)
        assert (await call.read()).infer_response.id == "last"
        assert (await failure(call.read()))[0] is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(application.lifecycle.idle(), 60)
