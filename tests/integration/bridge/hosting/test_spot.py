"""Notices of EC2 Spot, from a real HTTP server in the place of the machine's metadata service."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.app import Bridge
from bridge.hosting.metadata import LocalService
from bridge.hosting.spot import Notice, SpotWatch
from bridge.ledger.port import State
from bridge.served import Systems
from bridge.settings import load
from bridge.store import Store, open_store
from tests.support.bridge.trial_bridge import Trial, TrialHandler, message, start, trial_settings
from tests.support.servers.local_http import Asked, LocalHttp, local_http

ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class Metadata:
    """Speaks IMDSv2: nothing without a token that it gave."""

    def __init__(self) -> None:
        self.notices: dict[str, bytes] = {}
        self.tokens = 0

    def __call__(self, asked: Asked) -> tuple[int, bytes]:
        if (asked.method, asked.path) == ("PUT", "/latest/api/token") and asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds"):
            self.tokens += 1
            return 200, f"token-{self.tokens}".encode()
        if asked.headers.get("x-aws-ec2-metadata-token") != f"token-{self.tokens}":
            return 401, b""
        notice = self.notices.get(asked.path)
        return (404, b"") if notice is None else (200, notice)

    def will_go_in(self, seconds: float, action: str = "terminate") -> None:
        until = datetime.now(tz=UTC) + timedelta(seconds=seconds)
        self.notices[ACTION] = json.dumps({"action": action, "time": until.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()


async def _looked(service: LocalHttp, **options: Any) -> list[Notice]:
    found: list[Notice] = []
    await SpotWatch(LocalService(service.url, variable="X"), **options).look(found.append)
    return found


async def test_without_a_notice_nothing_is_told() -> None:
    with local_http(Metadata()) as service:
        assert [] == await _looked(service, rebalance=True)


async def test_a_notice_tells_its_action_and_the_time_that_is_left() -> None:
    metadata = Metadata()
    metadata.will_go_in(120, "stop")
    with local_http(metadata) as service:
        [notice] = await _looked(service)

    assert "stop" == notice.action
    assert notice.seconds_left is not None
    assert 60 < notice.seconds_left <= 120


async def test_a_rebalance_recommendation_counts_only_where_it_is_asked_for() -> None:
    metadata = Metadata()
    metadata.notices[REBALANCE] = b'{"noticeTime": "2026-01-01T00:00:00Z"}'
    with local_http(metadata) as service:
        assert [] == await _looked(service)
        assert [Notice(action="rebalance", seconds_left=None)] == await _looked(service, rebalance=True)


async def test_a_token_that_has_run_out_is_renewed() -> None:
    metadata = Metadata()
    with local_http(metadata) as service:
        watch = SpotWatch(LocalService(service.url, variable="X"))
        found: list[Notice] = []
        await watch.look(found.append)
        metadata.tokens += 1  # the service no longer knows the token
        metadata.will_go_in(120)
        await watch.look(found.append)

    assert ["terminate"] == [notice.action for notice in found]


async def test_a_service_that_does_not_answer_is_asked_again() -> None:
    metadata, found, stop = Metadata(), list[Notice](), asyncio.Event()
    metadata.will_go_in(120)
    with local_http(lambda _: (500, b"")) as service:
        watch = SpotWatch(LocalService(service.url, variable="X"), every_seconds=0.05)
        watching = asyncio.create_task(watch.run(stop, found.append))
        await asyncio.sleep(0.3)
        assert [] == found
        service.answering = metadata
        await asyncio.wait_for(watching, 60)

    assert 1 == len(found)


async def _run(folder: Path, service: LocalHttp, store: Store) -> asyncio.Task[None]:
    settings = load(**trial_settings(folder, spot_watch="interruption", spot_metadata=service.url, drain_seconds=60.0, lease_seconds=60.0))
    bridge = Bridge(settings, store, Systems(handlers=[TrialHandler()]))
    return asyncio.create_task(bridge.run(asyncio.Event(), asyncio.Event()))


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with open_store(load(**trial_settings(tmp_path))) as store:
        yield store


async def test_on_a_notice_a_bridge_drains_by_the_deadline_and_gives_back_what_would_not_end(tmp_path: Path, store: Store) -> None:
    metadata = Metadata()
    with local_http(metadata) as service:
        running = await _run(tmp_path, service, store)
        await store.submit(message("short", seconds=0.2))
        await store.submit(message("long", seconds=600))
        async with asyncio.timeout(60):
            while (job := await store.jobs.find("long")) is None or job.state is not State.RUNNING:
                await asyncio.sleep(0.02)
        metadata.will_go_in(15)  # all but five seconds of it are kept for giving things back
        await asyncio.wait_for(running, 100)
        states = {key: (job.state, job.attempts) for key in ("short", "long") if (job := await store.jobs.find(key))}

    assert {"short": (State.SUCCEEDED, 0), "long": (State.QUEUED, 0)} == states


async def test_a_bridge_that_starts_on_a_machine_that_will_go_takes_nothing(tmp_path: Path, store: Store) -> None:
    metadata = Metadata()
    metadata.will_go_in(120)
    await store.submit(message("one"))
    with local_http(metadata) as service:
        await asyncio.wait_for(await _run(tmp_path, service, store), 60)

    assert 1 == await store.queue.depth()
    assert (await store.jobs.find("one")).state is State.QUEUED  # type: ignore[union-attr]


async def test_sigterm_after_a_notice_leaves_no_more_than_the_settings_say(tmp_path: Path, store: Store) -> None:
    metadata = Metadata()
    await store.submit(message("long", seconds=600))
    with local_http(metadata) as service:
        settings = trial_settings(tmp_path, spot_watch="interruption", spot_metadata=service.url, drain_seconds=0.5, lease_seconds=60.0)
        process = start(Trial(settings=settings, log=tmp_path / "bridge.log"))
        async with asyncio.timeout(60):
            while (job := await store.jobs.find("long")) is None or job.state is not State.RUNNING:
                await asyncio.sleep(0.05)
            metadata.will_go_in(3000)
            while "machine_will_go" not in (tmp_path / "bridge.log").read_text():
                await asyncio.sleep(0.05)
        assert process.is_alive(), "the job may run until the machine goes"
        process.terminate()
        await asyncio.to_thread(process.join, 60)
        code = process.exitcode
        process.kill()

    assert 0 == code
    assert (State.QUEUED, 0) == ((await store.jobs.find("long")).state, (await store.jobs.find("long")).attempts)  # type: ignore[union-attr]


async def test_without_the_setting_nobody_asks_for_metadata(tmp_path: Path, store: Store) -> None:
    with local_http(Metadata()) as service:
        settings = load(**trial_settings(tmp_path, spot_metadata=service.url))
        stop = asyncio.Event()
        running = asyncio.create_task(Bridge(settings, store, Systems(handlers=[TrialHandler()])).run(stop, asyncio.Event()))
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.wait_for(running, 60)

    assert [] == service.asked
