"""Health, metrics and job status of a running bridge."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.app import Bridge, local_transport
from bridge.errors import ConfigurationError, OverloadError, TransientError
from bridge.http.events import JobEvents
from bridge.http.routes import Routes
from bridge.http.server import HttpServer
from bridge.job import Job, Outcome
from bridge.ledger.port import Claim
from bridge.served import Systems
from bridge.settings import load
from bridge.sources.local import LocalSource
from bridge.store import Store, open_store
from tests.support.bridge.trial_bridge import TrialHandler, message, trial_settings
from tests.support.ports import free_address


async def _get(address: str, path: str) -> tuple[int, str]:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(get)


@asynccontextmanager
async def _running(
    folder: Path,
    probes: dict[str, Any] | None = None,
    transport: dict[str, Any] | None = None,
    stop: asyncio.Event | None = None,
    **changes: Any,
) -> AsyncIterator[tuple[str, Store]]:
    # No lease runs out over a pause of the machine: all is counted once.
    settings = load(**trial_settings(folder, http=free_address(), lease_seconds=60.0, **changes))
    stop = stop or asyncio.Event()
    async with open_store(settings) as store:
        chosen = replace(local_transport(settings, store), **(transport or {}))
        bridge = Bridge(settings, store, Systems(handlers=[TrialHandler()], probes=probes or {}), transport=chosen)
        running = asyncio.create_task(bridge.run(stop, asyncio.Event()))
        try:
            await _until_up(settings.http)
            yield settings.http, store
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)


async def _until_up(address: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await _get(address, "/healthz")
                return
            except urllib.error.URLError:
                await asyncio.sleep(0.02)


async def _until_ended(store: Store, key: str) -> None:
    async with asyncio.timeout(60):
        while (record := await store.jobs.find(key)) is None or record.finished_at is None:
            await asyncio.sleep(0.02)


async def test_a_bridge_is_healthy_and_ready(tmp_path: Path) -> None:
    async with _running(tmp_path) as (address, _):
        assert (200, {"status": "ok"}) == _parsed(await _get(address, "/healthz"))
        assert (200, {"status": "ok"}) == _parsed(await _get(address, "/livez"))
        assert (200, {"status": "ready", "checks": {"ledger": "ok", "queue": "ok"}}) == _parsed(await _get(address, "/readyz"))


async def test_without_its_server_a_bridge_is_healthy_but_not_ready_and_says_why(tmp_path: Path) -> None:
    async def down() -> None:
        raise OverloadError("the inference server at 127.0.0.1:1 is not ready")

    async with _running(tmp_path, {"inference": down}) as (address, _):
        status, told = _parsed(await _get(address, "/readyz"))
        assert (503, "not ready") == (status, told["status"])
        assert {"ledger": "ok", "queue": "ok", "inference": "the inference server at 127.0.0.1:1 is not ready"} == told["checks"]
        assert (200, 200) == ((await _get(address, "/healthz"))[0], (await _get(address, "/livez"))[0])


async def test_a_loop_that_is_stuck_makes_a_bridge_not_live(tmp_path: Path) -> None:
    freed = asyncio.Event()

    class SilentSource(LocalSource):
        async def receive(self, *, limit: int, wait_seconds: float) -> Any:
            await freed.wait()
            return ()

    async with open_store(load(**trial_settings(tmp_path))) as other:
        source = SilentSource(other.queue, lease_seconds=1)
        async with _running(tmp_path, transport={"source": source}, stuck_seconds=0.3) as (address, _):
            async with asyncio.timeout(60):
                # On a stalled machine others are late too, for a moment.
                while list((reply := _parsed(await _get(address, "/livez")))[1].get("stuck", ())) != ["worker"]:
                    await asyncio.sleep(0.05)
            assert (503, "stuck") == (reply[0], reply[1]["status"])
            assert (await _get(address, "/readyz"))[0] == 200, "nothing is out of reach"
            freed.set()


async def test_a_source_that_cannot_be_received_from_makes_a_bridge_not_ready(tmp_path: Path) -> None:
    class BrokenSource(LocalSource):
        async def receive(self, *, limit: int, wait_seconds: float) -> Any:
            raise TransientError("no such queue")

    async with (
        open_store(load(**trial_settings(tmp_path))) as other,
        _running(tmp_path, transport={"source": BrokenSource(other.queue, lease_seconds=1)}) as (address, _),
    ):
        async with asyncio.timeout(60):
            while (reply := await _get(address, "/readyz"))[0] == 200:
                await asyncio.sleep(0.05)
        assert "no such queue" in _parsed(reply)[1]["checks"]["queue"]


async def test_a_bridge_that_drains_is_live_but_not_ready(tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with _running(tmp_path, stop=stop, drain_seconds=600.0) as (address, store):
        (tmp_path / "wait").touch()
        await store.submit(message("long", while_exists=str(tmp_path / "wait")))
        async with asyncio.timeout(60):
            while (record := await store.jobs.find("long")) is None or record.started_at is None:
                await asyncio.sleep(0.02)
        stop.set()
        async with asyncio.timeout(60):
            while (reply := await _get(address, "/readyz"))[0] == 200:
                await asyncio.sleep(0.02)
        assert "draining" in _parsed(reply)[1]["checks"]["worker"]
        assert 200 == (await _get(address, "/livez"))[0]
        (tmp_path / "wait").unlink()


async def test_a_job_is_shown_without_its_secrets(tmp_path: Path) -> None:
    async with _running(tmp_path) as (address, store):
        job = Job(key="a-slide", system="wsi", request={"password": "hidden", "shown": 1})
        claim = await store.ledger.claim(job, worker="tester", lease_seconds=60)
        assert isinstance(claim, Claim)
        await store.ledger.finish(claim, Outcome(succeeded=True, result={"cells": 7}))

        status, told = _parsed(await _get(address, "/jobs/a-"))

    assert (200, "a-slide", "succeeded", {"shown": 1}) == (status, told["key"], told["state"], told["request"])
    assert {"cells": 7} == told["result"]


async def test_of_a_job_of_an_unknown_system_only_its_state_is_told(tmp_path: Path) -> None:
    async with _running(tmp_path) as (address, store):
        await store.submit(message("a-job", text="BUDI SANTOSO"))
        await _until_ended(store, "a-job")
        status, told = _parsed(await _get(address, "/jobs/a-job"))
    assert (200, "succeeded", {}, {}) == (status, told["state"], told["request"], told["result"])


async def test_what_was_read_of_people_is_not_told_to_whom_nobody_has_asked_who_they_are(tmp_path: Path) -> None:
    result = {
        "score": 90,
        "decision": "auto_approve",
        "parsedResult": {"name": "BUDI SANTOSO"},
        "fields": {"nik": {"value": "BUDI SANTOSO"}},
    }
    async with _running(tmp_path) as (address, store):
        job = Job(key="a-card", system="cards", request={"documentId": "d", "tests": ["BUDI SANTOSO"]})
        claim = await store.ledger.claim(job, worker="tester", lease_seconds=60)
        assert isinstance(claim, Claim)
        await store.ledger.finish(claim, Outcome(succeeded=True, result=result))

        status, told = _parsed(await _get(address, "/jobs/a-card"))
        _, events = await _get(address, "/jobs/a-card/events")

    assert (200, {"score": 90, "decision": "auto_approve"}, {"documentId": "d"}) == (status, told["result"], told["request"])
    assert ("auto_approve" in events, "BUDI" in events) == (True, False)


async def test_a_job_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with _running(tmp_path) as (address, _):
        status, told = _parsed(await _get(address, "/jobs/nothing"))

    assert (404, "not found") == (status, told["error"])
    assert "'nothing'" in told["reason"]


async def test_metrics_count_jobs_by_system_and_outcome(tmp_path: Path) -> None:
    async with _running(tmp_path) as (address, store):
        await store.submit(message("good"))
        await store.submit(message("bad", broken=True))
        await store.queue.send("poison", b"?")
        for key in ("good", "bad"):
            await _until_ended(store, key)
        missing = await _until_told(
            address,
            'bridge_jobs_total{outcome="succeeded",system="trial"} 1.0',
            'bridge_jobs_total{outcome="failed",system="trial"} 1.0',
            'bridge_jobs_total{outcome="poison",system="unknown"} 1.0',
            'bridge_tries_total{class="permanent",outcome="PermanentError",system="trial"} 1.0',
            'bridge_step_seconds_count{step="claimed",system="trial"} 2.0',
            "bridge_jobs_in_flight 0.0",
            "bridge_outbox_messages 0.0",
            'bridge_queue_messages{queue="jobs",source="local",state="waiting"} 0.0',
        )

    assert not missing


async def _until_told(address: str, *lines: str) -> list[str]:
    """Ask for the metrics until they have all lines; returns those that never came."""
    missing = list(lines)
    deadline = asyncio.get_running_loop().time() + 60
    while missing and asyncio.get_running_loop().time() < deadline:
        _, text = await _get(address, "/metrics")
        missing = [line for line in lines if line not in text]
        await asyncio.sleep(0.05 if missing else 0)
    return missing


async def test_a_queue_out_of_reach_makes_a_bridge_not_ready_and_leaves_its_other_figures(tmp_path: Path) -> None:
    async def down() -> Any:
        raise TransientError("no queue at 127.0.0.1:1")

    async with _running(tmp_path, transport={"levels": down, "probe": down}) as (address, _):
        status, told = _parsed(await _get(address, "/readyz"))
        metrics = await _get(address, "/metrics")

    assert (503, {"ledger": "ok", "queue": "no queue at 127.0.0.1:1"}) == (status, told["checks"])
    assert metrics[0] == 200
    assert 'bridge_queue_reachable{source="local"} 0.0' in metrics[1]
    assert "bridge_outbox_messages 0.0" in metrics[1]


async def test_an_address_that_is_taken_is_told_with_the_fix(tmp_path: Path) -> None:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:
        routes = Routes(jobs=store.jobs, figures=None, events=JobEvents(), probes={})  # type: ignore[arg-type]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ConfigurationError, match=f"BRIDGE_HTTP: cannot listen on {address}"):
                HttpServer(routes.application(), address)


def _parsed(reply: tuple[int, str]) -> tuple[int, Any]:
    return reply[0], json.loads(reply[1])
