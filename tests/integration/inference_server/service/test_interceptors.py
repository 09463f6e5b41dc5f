"""What happens around every call, seen by a client of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference import grpc_service_pb2 as wire
from prometheus_client import CollectorRegistry

from inference_server.errors import InvalidTensor, Overloaded
from inference_server.service.caller import caller_of
from inference_server.service.interceptors import CallInterceptor
from inference_server.service.lifecycle import BytesInFlight, Lifecycle, Phase
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.request_limits import RequestLimits
from inference_server.service.server import Connection, GrpcServer, Service
from tests.support.models.requests import failed_call
from tests.support.moved_clock import moved_clock
from tests.support.patience import until

Request, Response = wire.ModelInferRequest, wire.ModelInferResponse


class Running:
    """A server with one method of each kind, and a channel to it."""

    def __init__(self, lifecycle: Lifecycle, registry: CollectorRegistry, channel: grpc.aio.Channel, server: GrpcServer) -> None:
        self.lifecycle = lifecycle
        self.server = server
        self.channel = channel
        self._registry = registry
        form = {"request_serializer": Request.SerializeToString, "response_deserializer": Response.FromString}
        self.one = channel.unary_unary("/test.Service/One", **form)
        self.many = channel.unary_stream("/test.Service/Many", **form)
        self.both = channel.stream_stream("/test.Service/Both", **form)
        self.anything = channel.unary_unary("/test.Service/One")

    def count(self, method: str, code: str) -> float:
        labels = {"service": "test.Service", "method": method, "code": code}
        return self._registry.get_sample_value("lamina_calls_total", labels) or 0.0

    def gauge(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)


@asynccontextmanager
async def running(
    behaviour: Callable[..., Any],
    *,
    most_bytes: int = 2**20,
    most_calls: int = 100,
    limits: RequestLimits | None = None,
    streams: int = 100,
) -> AsyncIterator[Running]:
    """`behaviour(request, context)` is an async generator; the method with one response sends its first."""

    async def one(request: Request, context: Any) -> Response:
        return await anext(behaviour(request, context))

    async def both(requests: AsyncIterator[Request], context: Any) -> AsyncIterator[Response]:
        async for request in requests:
            async for response in behaviour(request, context):
                yield response

    parse, write = Request.FromString, Response.SerializeToString
    handlers = {
        "One": grpc.unary_unary_rpc_method_handler(one, parse, write),
        "Many": grpc.unary_stream_rpc_method_handler(behaviour, parse, write),
        "Both": grpc.stream_stream_rpc_method_handler(both, parse, write),
    }
    lifecycle, registry = Lifecycle(most_calls=most_calls), CollectorRegistry()
    metrics = CallMetrics(registry, "1")
    held = BytesInFlight(most=most_bytes, observe=metrics.bytes_in_flight)
    handler = grpc.method_handlers_generic_handler("test.Service", handlers)
    server = GrpcServer(
        address="127.0.0.1:0",
        services=[Service(name="test.Service", add_to=lambda server: server.add_generic_rpc_handlers((handler,)))],
        lifecycle=lifecycle,
        intercept=CallInterceptor(
            lifecycle=lifecycle, bytes_in_flight=held, metrics=metrics, limits=limits or RequestLimits(message_bytes=2**20)
        ).wrap,
        connection=Connection(max_message_bytes=2**20, max_streams=streams),
    )
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        try:
            yield Running(lifecycle, registry, channel, server)
        finally:
            await server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event())


async def _echo(request: Any, context: Any) -> AsyncIterator[Response]:
    yield Response(id=request.id)


async def _all(call: Any) -> list[str]:
    return [response.id async for response in call]


async def test_calls_of_each_kind_pass_and_are_counted() -> None:
    async with running(_echo) as server:
        assert (await server.one(Request(id="a"))).id == "a"
        assert await _all(server.many(Request(id="b"))) == ["b"]
        assert await _all(server.both(iter([Request(id="c"), Request(id="d")]))) == ["c", "d"]
        assert [server.count(method, "OK") for method in ("One", "Many", "Both")] == [1, 1, 1]
        assert server.gauge("lamina_call_seconds_count", service="test.Service", method="One") == 1
        assert server.gauge("lamina_calls_in_flight", service="test.Service", method="One") == 0
        assert server.gauge("lamina_bytes_in_flight") == 0


async def _refuse(request: Request, context: Any) -> AsyncIterator[Response]:
    raise InvalidTensor("input x is wrong; send it right.")
    yield


async def test_an_error_of_the_tree_becomes_its_status_in_calls_of_each_kind() -> None:
    async with running(_refuse) as server:
        for call in (server.one(Request()), _all(server.many(Request())), _all(server.both(iter([Request()])))):
            error = await failed_call(call)
            assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "input x is wrong; send it right.")
        assert [server.count(method, "INVALID_ARGUMENT") for method in ("One", "Many", "Both")] == [1, 1, 1]


async def _overload(request: Request, context: Any) -> AsyncIterator[Response]:
    raise Overloaded("the queue is full; try again.", retry_after=1.5)
    yield


async def test_an_overloaded_server_says_when_to_try_again() -> None:
    async with running(_overload) as server:
        error = await failed_call(server.one(Request()))
        assert (error.code(), dict(error.trailing_metadata())["retry-after-ms"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "1500")


async def _break(request: Request, context: Any) -> AsyncIterator[Response]:
    raise ValueError("a secret of the server")
    yield


async def test_the_text_of_an_unexpected_error_stays_in_the_server() -> None:
    async with running(_break) as server:
        for call in (server.one(Request(id="r-1")), _all(server.many(Request(id="r-1")))):
            error = await failed_call(call)
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in str(error.details())
            assert "request_id r-1" in str(error.details())


async def _after_one(request: Request, context: Any) -> AsyncIterator[Response]:
    yield Response(id="first")
    raise InvalidTensor("the second is wrong.")


async def test_a_stream_that_fails_midway_keeps_what_it_sent() -> None:
    async with running(_after_one) as server:
        call, got = server.many(Request()), []

        async def read() -> None:
            async for response in call:
                got.append(response.id)

        assert (await failed_call(read())).code() is grpc.StatusCode.INVALID_ARGUMENT
        assert got == ["first"]


async def test_bytes_that_are_no_message_get_a_clear_refusal() -> None:
    async with running(_echo) as server:
        error = await failed_call(server.anything(b"\xff\xff\xff"))
        assert (error.code(), "no message of its type" in str(error.details())) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(("size", "counted"), [(2**20, 1), (2**21, 0)])
async def test_a_message_too_big_is_refused_with_the_limit_and_counted_unless_it_was_not_even_taken(size: int, counted: int) -> None:
    async with running(_echo) as server:
        error = await failed_call(server.one(Request(raw_input_contents=[bytes(size)])))
        assert (error.code(), "larger than max" in str(error.details())) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        # gRPC itself, which refuses what is far larger, knows no settings.
        assert ("INFERENCE_MAX_MESSAGE_BYTES" in str(error.details())) == bool(counted)
        assert (server.gauge("lamina_limit_refusals_total", limit="message_bytes") or 0) == counted


class _Gate:
    """A behaviour that waits until it is let through, and tells what became of it."""

    def __init__(self) -> None:
        self.begun, self.open, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> AsyncIterator[Response]:
        self.begun.set()
        try:
            await self.open.wait()
            yield Response(id=request.id)
        finally:
            self.ended.set()


async def test_requests_beyond_the_bytes_in_flight_are_refused_until_there_is_room() -> None:
    gate = _Gate()
    async with running(gate, most_bytes=1000) as server:
        first = asyncio.ensure_future(server.one(Request(raw_input_contents=[bytes(600)])))
        await asyncio.wait_for(gate.begun.wait(), 60)
        error = await failed_call(server.one(Request(raw_input_contents=[bytes(600)])))
        assert (error.code(), "too many bytes" in str(error.details())) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert int(dict(error.trailing_metadata())["retry-after-ms"]) > 0
        assert server.gauge("lamina_limit_refusals_total", limit="bytes_in_flight") == 1
        gate.open.set()
        await first
        await server.one(Request(raw_input_contents=[bytes(600)]))


async def test_calls_beyond_the_limit_are_refused_until_one_ends() -> None:
    gate = _Gate()
    async with running(gate, most_calls=2) as server:
        open_calls = [asyncio.ensure_future(_all(server.many(Request()))), asyncio.ensure_future(server.one(Request()))]
        while server.lifecycle.in_flight < 2:
            await asyncio.sleep(0.01)
        error = await failed_call(server.one(Request()))
        assert (error.code(), "2 calls are open" in str(error.details())) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert server.gauge("lamina_limit_refusals_total", limit="calls") == 1
        gate.open.set()
        await asyncio.gather(*open_calls)
        await server.one(Request())


async def test_who_watches_the_health_takes_places_apart_and_health_checks_take_none() -> None:
    async with running(_echo, most_calls=1) as server:
        health, asked = health_pb2_grpc.HealthStub(server.channel), health_pb2.HealthCheckRequest(service="test.Service")
        watching = health.Watch(asked)
        await watching.read()
        assert (await failed_call(health.Watch(asked).read())).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await health.Check(asked)
        await server.one(Request())
        watching.cancel()


async def test_one_connection_has_so_many_calls_at_a_time() -> None:
    gate = _Gate()
    async with running(gate, streams=1) as server:
        first = asyncio.ensure_future(server.one(Request()))
        await asyncio.wait_for(gate.begun.wait(), 60)
        second = asyncio.ensure_future(server.one(Request()))
        await asyncio.sleep(0.2)
        assert server.lifecycle.in_flight == 1
        gate.open.set()
        await asyncio.gather(first, second)


TOO_MUCH = {
    "tensors": [
        Request(inputs=[Request.InferInputTensor(name=str(number)) for number in range(3)]),
        Request(outputs=[Request.InferRequestedOutputTensor(name=str(number)) for number in range(3)]),
        Request(raw_input_contents=[b""] * 3),
    ],
    "name_characters": [
        Request(model_name="n" * 65),
        Request(id="n" * 65),
        Request(inputs=[Request.InferInputTensor(name="n" * 65)]),
        Request(inputs=[Request.InferInputTensor(parameters={"n" * 65: wire.InferParameter()})]),
        Request(parameters={"n" * 65: wire.InferParameter()}),
    ],
}


@pytest.mark.parametrize("limit", TOO_MUCH)
async def test_a_request_with_too_much_of_something_is_refused_and_counted(limit: str) -> None:
    async with running(_echo, limits=RequestLimits(tensors=2, name_characters=64)) as server:
        for request in TOO_MUCH[limit]:
            error = await failed_call(server.one(request))
            assert (error.code(), "are taken" in str(error.details())) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert server.gauge("lamina_limit_refusals_total", limit=limit) == len(TOO_MUCH[limit])
        await server.one(Request(id="n" * 64, inputs=[Request.InferInputTensor(name="x"), Request.InferInputTensor(name="y")]))


@pytest.mark.parametrize("kind", ["one", "many"])
async def test_a_call_that_the_client_cancels_ends_at_once(kind: str) -> None:
    gate = _Gate()
    async with running(gate) as server:
        call = getattr(server, kind)(Request())
        reading = asyncio.ensure_future(_all(call) if kind == "many" else call)
        await asyncio.wait_for(gate.begun.wait(), 60)
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.wait_for(gate.ended.wait(), 60)
        await asyncio.wait_for(server.lifecycle.idle(), 60)
        assert server.count(kind.capitalize(), "CANCELLED") == 1


async def test_a_call_whose_deadline_passes_ends_at_once() -> None:
    gate = _Gate()
    async with running(gate) as server:
        seconds = 0.2
        # A slow machine may not have begun it by then.
        while not gate.begun.is_set():
            error = await failed_call(server.one(Request(), timeout=seconds))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            seconds *= 3
        await asyncio.wait_for(gate.ended.wait(), 60)
        await asyncio.wait_for(server.lifecycle.idle(), 60)
        assert server.count("One", "DEADLINE_EXCEEDED") >= 1


async def _refuse_at_length(request: Request, context: Any) -> AsyncIterator[Response]:
    raise InvalidTensor(f"there is no model {'é' * 100_000}")
    yield


async def test_a_message_of_any_length_reaches_the_client_shortened() -> None:
    async with running(_refuse_at_length) as server:
        error = await failed_call(server.one(Request()))
        assert (error.code(), str(error.details())[:18]) == (grpc.StatusCode.INVALID_ARGUMENT, "there is no model ")
        assert str(error.details()).endswith("é … (100018 characters)")


async def test_a_draining_server_still_answers_probes() -> None:
    async with running(_echo) as server:
        server.lifecycle.advance(Phase.DRAINING)
        assert (await failed_call(server.one(Request()))).code() is grpc.StatusCode.UNAVAILABLE
        health = health_pb2_grpc.HealthStub(server.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="test.Service"))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_caller_is_known_by_its_own_name_or_its_address_and_by_its_deadline() -> None:
    callers = []

    async def remember(request: Request, context: Any) -> AsyncIterator[Response]:
        callers.append(caller_of(context, priority=3))
        yield Response()

    async with running(remember) as server:
        await server.one(Request(), metadata=(("lamina-client", "ward-7"),), timeout=60)
        await server.one(Request())
    assert [(caller.client, caller.priority, caller.deadline is None) for caller in callers] == [
        ("ward-7", 3, False),
        ("ipv4:127.0.0.1", 3, True),
    ]


async def test_a_leaving_server_serves_then_refuses_then_lets_calls_in_flight_end(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, clock = _Gate(), moved_clock(monkeypatch)
    async with running(gate) as server:
        server.lifecycle.advance(Phase.READY)
        slow = asyncio.ensure_future(server.one(Request(id="slow")))
        await asyncio.wait_for(gate.begun.wait(), 60)
        stopping = asyncio.create_task(server.server.stop(grace_seconds=300, drain_seconds=600, hurry=asyncio.Event()))
        await until(lambda: server.lifecycle.phase is Phase.LEAVING)
        second = asyncio.ensure_future(server.one(Request(id="in the grace")))
        await until(lambda: server.lifecycle.in_flight == 2)
        clock.sleep(300)
        await until(lambda: server.lifecycle.phase is Phase.DRAINING)
        error = await failed_call(server.one(Request()))
        assert (error.code(), "shutting down" in str(error.details())) == (grpc.StatusCode.UNAVAILABLE, True)
        gate.open.set()
        assert ((await slow).id, (await second).id) == ("slow", "in the grace")
        await asyncio.wait_for(stopping, 60)


async def test_calls_that_outlast_the_drain_are_cut_off_as_those_that_come_later_are_refused() -> None:
    gate = _Gate()
    async with running(gate) as server:
        endless = asyncio.ensure_future(server.one(Request()))
        await asyncio.wait_for(gate.begun.wait(), 60)
        await asyncio.wait_for(server.server.stop(grace_seconds=0, drain_seconds=0.1, hurry=asyncio.Event()), 60)
        error = await failed_call(endless)
        assert (error.code(), "shutting down" in str(error.details())) == (grpc.StatusCode.UNAVAILABLE, True)
        assert (gate.ended.is_set(), server.count("One", "UNAVAILABLE")) == (True, 1)


async def _endless(request: Any, context: Any) -> AsyncIterator[Response]:
    while True:
        yield Response(raw_output_contents=[bytes(2**19)])


async def test_a_stream_whose_caller_has_not_taken_all_is_cut_off_in_the_same_words() -> None:
    async with running(_endless) as server:
        call = server.many(Request())
        await anext(aiter(call))
        stopping = asyncio.ensure_future(server.server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event()))
        await until(lambda: server.lifecycle.in_flight == 0)
        assert (await failed_call(_all(call))).code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(stopping, 60)
        assert server.count("Many", "UNAVAILABLE") == 1


async def test_a_call_that_its_caller_cancelled_before_the_server_cuts_it_off_is_told_as_cancelled() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def lingers(request: Any, context: Any) -> AsyncIterator[Response]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        yield Response()

    async with running(lingers) as server:
        call = server.one(Request())
        await asyncio.wait_for(begun.wait(), 60)
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 60)
        await asyncio.wait_for(server.server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event()), 60)
        assert (server.count("One", "CANCELLED"), server.count("One", "UNAVAILABLE")) == (1, 0)
