"""What the client makes of a connection that breaks: over the job, before it, or with a word of the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from lamina.v1 import slides_pb2

from bridge.errors import BridgeError, OverloadError, ServerLostError
from bridge.inference.client import InferenceClient
from bridge.inference.labs import LabTest
from bridge.inference.policies import RetryPolicy
from bridge.inference.server import Server
from tests.support.bridge.scripted_server import Behaviour, ScriptedServer, begin, hang, refuse
from tests.support.servers.fault_proxy import FaultProxy

QUICK = RetryPolicy(attempts=3, wait_initial=0.01, wait_most=0.05)
PROGRESS = slides_pb2.AnalyzeSlideResponse(progress=slides_pb2.AnalysisProgress(stage="tiles", tiles_done=1, tiles_total=4))
Ask = Callable[[InferenceClient], Awaitable[Any]]


@pytest.fixture
async def proxy(server: ScriptedServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(int(server.address.rpartition(":")[2])) as between:
        yield between


async def slide(client: InferenceClient) -> None:
    async for _ in client.analyze_slide("slide.svs", request_id="job-1"):
        pass


async def labs(client: InferenceClient) -> None:
    await client.classify_lab_tests([LabTest(id="a", name="Hemoglobin")], request_id="job-1")


async def failure(proxy: FaultProxy, ask: Ask, *, then: Callable[[], Awaitable[None]]) -> BridgeError:
    """What a call ends with over which something happens."""
    async with InferenceClient(f"127.0.0.1:{proxy.port}", retries=QUICK) as client:
        call = asyncio.ensure_future(ask(client))
        await then()
        with pytest.raises(BridgeError) as raised:
            async with asyncio.timeout(30):
                await call
    return raised.value


@pytest.mark.parametrize(
    ("ask", "script"), [(slide, begin(hang())), (slide, begin(hang(PROGRESS))), (labs, begin(hang()))], ids=["silent", "told", "labs"]
)
async def test_a_connection_that_breaks_over_the_job_is_a_lost_server_and_the_next_one_is_spared(
    server: ScriptedServer, proxy: FaultProxy, ask: Ask, script: Behaviour
) -> None:
    server.script = [script]

    async def cut() -> None:
        await server.begun.wait()
        await asyncio.sleep(0.3)
        proxy.cut()

    error = await failure(proxy, ask, then=cut)

    assert isinstance(error, ServerLostError), error
    assert 1 == len(server.requests), "it is put back first"


@pytest.mark.parametrize("ask", [slide, labs])
async def test_a_server_that_cannot_be_reached_was_not_lost_over_the_job(server: ScriptedServer, proxy: FaultProxy, ask: Ask) -> None:
    proxy.refuse()

    error = await failure(proxy, ask, then=_nothing)

    assert type(error) is OverloadError, error
    assert not server.requests


async def test_a_connection_that_breaks_before_the_work_begins_is_no_lost_server(server: ScriptedServer, proxy: FaultProxy) -> None:
    server.script = [hang()]

    async def cut() -> None:
        await server.begun.wait()
        await asyncio.sleep(0.3)
        proxy.refuse()

    assert type(await failure(proxy, labs, then=cut)) is OverloadError


@pytest.mark.parametrize("ask", [slide, labs])
async def test_an_unavailable_of_the_servers_own_is_an_overload_though_the_work_had_begun(
    server: ScriptedServer, proxy: FaultProxy, ask: Ask
) -> None:
    own = (("lamina-own-status", "1"),)
    server.script = [begin(refuse(grpc.StatusCode.UNAVAILABLE, "shutting down", trailing=own))]

    assert type(await failure(proxy, ask, then=_nothing)) is OverloadError
    assert len(server.requests) > 1, "it is tried again"


async def test_a_server_that_falls_silent_over_the_job_is_lost_too(
    server: ScriptedServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [begin(hang(PROGRESS))]

    async def fall_silent(asked: Server, *_: object, **__: object) -> None:
        if server.begun.is_set():
            await asyncio.sleep(0.3)
            asked._give_up()

    monkeypatch.setattr(Server, "look", fall_silent)

    assert isinstance(await failure(proxy, slide, then=_nothing), ServerLostError)


async def _nothing() -> None:
    """Nothing happens but what the server does."""
