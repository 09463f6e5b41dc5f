"""The inference client on several servers of one name: whom it asks, whom it leaves alone, and what it does when one is in trouble."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import grpc
import pytest
from lamina.v1 import labs_pb2, slides_pb2

from bridge.errors import HeldUpError, OverloadError
from bridge.inference.client import InferenceClient
from bridge.inference.labs import LabTest
from bridge.inference.policies import RetryPolicy, Timeouts, Watchfulness
from bridge.inference.replicas import replicas
from bridge.inference.slides import SlideProgress
from tests.support.bridge.scripted_server import ScriptedServer, answer, hang, refuse, scripted_server

TESTS = [LabTest(id="a", name="Hemoglobin")]
# Servers and their name are looked at often. An answer may take as long as a pause of the machine does.
WATCHFUL = Watchfulness(look_seconds=0.1, again_seconds=0.05, answer_seconds=60, silent_seconds=60, resolve_seconds=0.1)
PATIENT = Timeouts(labs=100, slide=100)
REPLY = labs_pb2.ClassifyLabTestsResponse(classifications=[labs_pb2.LabTestClassification(id="a")])


class Names:
    """What the name inference.test stands for at the moment; it cannot be looked up while `down`."""

    def __init__(self) -> None:
        self.servers: list[ScriptedServer] = []
        self.down = False

    def look_up(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if self.down:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        addresses = [server.address.rpartition(":") for server in self.servers] if host == "inference.test" else [(host, "", port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, int(number))) for name, _, number in addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    return made


@pytest.fixture
async def servers(names: Names) -> AsyncIterator[Sequence[ScriptedServer]]:
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(scripted_server()) for _ in range(3)]
        # In the order in which idle ones take their first turn.
        names.servers = sorted(started, key=lambda server: server.address)
        for server in names.servers:
            server.script = [answer(REPLY)]
        yield list(names.servers)


@pytest.fixture
async def client(names: Names) -> AsyncIterator[InferenceClient]:
    retries = RetryPolicy(attempts=2, wait_initial=0.01, wait_most=0.05)
    async with InferenceClient("inference.test:8001", timeouts=PATIENT, retries=retries, watchfulness=WATCHFUL) as made:
        yield made


async def ask(client: InferenceClient, times: int = 1) -> None:
    for _ in range(times):
        await client.classify_lab_tests(TESTS, request_id="job-1")


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.01)


def counts(servers: Sequence[ScriptedServer]) -> list[int]:
    return [len(server.requests) for server in servers]


async def all_serve(client: InferenceClient, count: int = 3) -> None:
    await client.server_ready()
    await until(lambda: client.standings()["serving"] == count)


async def test_servers_that_have_nothing_to_do_take_turns(servers: Sequence[ScriptedServer], client: InferenceClient) -> None:
    await all_serve(client)
    await ask(client, 9)
    assert [3, 3, 3] == counts(servers)


async def test_a_server_that_is_slow_gets_no_more_calls_than_it_ends(servers: Sequence[ScriptedServer], client: InferenceClient) -> None:
    await all_serve(client)
    servers[1].script = [hang()]
    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(ask(client)) for _ in range(3)]
        await until(lambda: sum(counts(servers)) == 3)
        await ask(client, 10)
        assert [1, 12] == [counts(servers)[1], counts(servers)[0] + counts(servers)[2]]
        for task in slow:
            task.cancel()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_call_that_is_refused_goes_to_another_server_at_once(
    servers: Sequence[ScriptedServer], names: Names, code: grpc.StatusCode
) -> None:
    patient = RetryPolicy(attempts=2, wait_initial=60, wait_most=60)
    async with InferenceClient("inference.test:8001", timeouts=PATIENT, retries=patient, watchfulness=WATCHFUL) as client:
        await all_serve(client)
        servers[0].script = servers[1].script = [refuse(code, retry_after_ms=30_000)]
        async with asyncio.timeout(60):
            await ask(client, 3)
    assert 3 == counts(servers)[2]


async def test_a_server_that_lacks_a_model_stays_in_use_for_all_else(servers: Sequence[ScriptedServer], names: Names) -> None:
    patient = RetryPolicy(attempts=2, wait_initial=60, wait_most=60)
    seldom = replace(WATCHFUL, look_seconds=60, again_seconds=60)
    lacks = refuse(grpc.StatusCode.UNAVAILABLE, "model tumour could not be loaded", trailing=(("lamina-unavailable", "model"),))
    async with InferenceClient("inference.test:8001", timeouts=PATIENT, retries=patient, watchfulness=seldom) as client:
        await all_serve(client)
        for server in servers:
            server.script = [lacks]
        with pytest.raises(HeldUpError, match="model tumour could not be loaded"):
            async with asyncio.timeout(30):
                await ask(client)
        assert ([1, 1, 1], 3) == (counts(servers), client.standings()["serving"]), "each was asked, once"


async def test_a_full_server_is_left_alone_for_as_long_as_it_asks(servers: Sequence[ScriptedServer], client: InferenceClient) -> None:
    await all_serve(client)
    servers[0].script = [refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=600_000), answer(REPLY)]
    await ask(client, 12)
    assert 1 == counts(servers)[0]
    assert 1 == client.standings()["full"]


async def test_a_stream_that_is_refused_begins_elsewhere_and_one_that_has_begun_does_not(
    servers: Sequence[ScriptedServer], client: InferenceClient
) -> None:
    await all_serve(client)
    progress = slides_pb2.AnalyzeSlideResponse(progress=slides_pb2.AnalysisProgress(stage="tiles", tiles_total=4))
    servers[0].script = [refuse(grpc.StatusCode.UNAVAILABLE)]
    servers[1].script = [refuse(grpc.StatusCode.UNAVAILABLE, "going down", after=(progress,))]
    servers[2].script = [refuse(grpc.StatusCode.UNAVAILABLE)]
    stream = client.analyze_slide("/slides/a.svs", request_id="job-1")
    async with aclosing(stream):
        assert isinstance(await anext(stream), SlideProgress)
        with pytest.raises(OverloadError, match="going down"):
            await anext(stream)
    assert 1 == counts(servers)[1]


async def test_a_server_that_says_it_is_leaving_gets_no_new_call_and_ends_what_it_has(
    servers: Sequence[ScriptedServer], client: InferenceClient
) -> None:
    await all_serve(client)
    let_go = asyncio.Event()

    async def slowly(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        await let_go.wait()
        yield REPLY

    servers[0].script = [slowly]
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(client, 1))
        await until(lambda: counts(servers)[0] == 1)
        await servers[0].tell_health(serving=False)
        await until(lambda: client.standings()["away"] == 1)
        await ask(client, 8)
        let_go.set()
    assert [1, 8] == [counts(servers)[0], counts(servers)[1] + counts(servers)[2]]


async def test_one_that_comes_back_gets_calls_again(servers: Sequence[ScriptedServer], client: InferenceClient) -> None:
    await servers[0].tell_health(serving=False)
    await all_serve(client, 2)
    await ask(client, 4)
    assert 0 == counts(servers)[0]
    await servers[0].tell_health(serving=True)
    await all_serve(client)
    await ask(client, 3)
    assert 1 == counts(servers)[0]


async def test_a_server_that_its_name_gains_is_used_and_one_that_it_loses_only_ends_what_it_has(
    servers: Sequence[ScriptedServer], names: Names, client: InferenceClient
) -> None:
    first, second, third = servers
    names.servers = [first]
    first.script = [hang()]
    await all_serve(client, 1)
    kept = asyncio.create_task(ask(client))
    await until(lambda: counts(servers)[0] == 1)
    names.servers = [second, third]
    await until(lambda: client.standings()["serving"] == 2)
    await ask(client, 6)
    assert [1, 3, 3] == counts(servers)
    assert not kept.done()
    assert not first.cancelled.is_set()
    kept.cancel()


async def test_a_name_that_cannot_be_looked_up_takes_no_known_server_away(
    servers: Sequence[ScriptedServer], names: Names, client: InferenceClient
) -> None:
    await all_serve(client)
    names.down = True
    await asyncio.sleep(0.3)
    await ask(client, 3)
    assert [1, 1, 1] == counts(servers)


async def test_a_name_that_stands_for_nothing_is_an_overload_until_it_does(servers: Sequence[ScriptedServer], names: Names) -> None:
    names.down = True
    patient = replace(WATCHFUL, resolve_seconds=60)
    async with InferenceClient("inference.test:8001", timeouts=PATIENT, retries=RetryPolicy(attempts=1), watchfulness=patient) as client:
        with pytest.raises(OverloadError, match=r"name 'inference\.test' stands for no address"):
            await ask(client)
        assert not await client.server_ready()
        names.down = False
        await all_serve(client)
        await ask(client)


async def test_all_tries_of_a_call_share_its_deadline(servers: Sequence[ScriptedServer], client: InferenceClient) -> None:
    await all_serve(client)

    async def late(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        await asyncio.sleep(1)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "late")
        yield REPLY

    for server in servers[:2]:
        server.script = [late]
    await ask(client)
    left = [seconds for server in servers for seconds in server.deadlines if seconds is not None]
    assert [1, 1, 1] == counts(servers)
    # With a deadline each, the last would be given the whole of it. Whole seconds go over the wire, rounded up.
    assert left[2] <= PATIENT.labs - 1


async def test_several_addresses_are_a_fleet_too(servers: Sequence[ScriptedServer]) -> None:
    async with InferenceClient(", ".join(server.address for server in servers), watchfulness=WATCHFUL) as client:
        await all_serve(client)
        await ask(client, 6)
    assert [2, 2, 2] == counts(servers)


async def test_an_address_among_several_that_cannot_be_looked_up_hides_no_other(names: Names, servers: Sequence[ScriptedServer]) -> None:
    found = await replicas(f"{servers[0].address},[not a number]:x")
    assert [servers[0].address] == [each.address for each in found]
