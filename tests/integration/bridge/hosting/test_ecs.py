"""Task protection, asked of a real HTTP server in the agent's place, by whole bridges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.app import Bridge
from bridge.errors import ConfigurationError
from bridge.hosting.ecs import TaskProtection
from bridge.hosting.machine import Machine
from bridge.hosting.metadata import LocalService
from bridge.served import Systems
from bridge.settings import load
from bridge.steps import Step, StepTaken
from bridge.store import Store, open_store
from tests.support.bridge.trial_bridge import TrialHandler, message, trial_settings
from tests.support.moved_clock import moved_clock
from tests.support.servers.local_http import Asked, LocalHttp, local_http


def _agent(asked: Asked) -> tuple[int, bytes]:
    enabled = json.loads(asked.body)["ProtectionEnabled"]
    return 200, json.dumps({"protection": {"ProtectionEnabled": enabled, "TaskArn": "arn:aws:ecs:eu-west-1:1:task/one"}}).encode()


def _states(agent: LocalHttp) -> list[Any]:
    assert {("PUT", "/api/task/task-protection/v1/state", "application/json")} >= {
        (asked.method, asked.path, asked.headers["content-type"]) for asked in agent.asked
    }
    return [json.loads(asked.body) for asked in agent.asked]


async def _until(told: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not told():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _bridge(folder: Path, **settings: Any) -> AsyncIterator[Store]:
    given = load(**trial_settings(folder, lease_seconds=60.0, **settings))
    stop = asyncio.Event()
    async with open_store(given) as store:
        running = asyncio.create_task(Bridge(given, store, Systems(handlers=[TrialHandler()])).run(stop, asyncio.Event()))
        try:
            yield store
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)


async def _ended(store: Store, key: str) -> str:
    async with asyncio.timeout(60):
        while (record := await store.jobs.find(key)) is None or record.finished_at is None:
            await asyncio.sleep(0.02)
    return record.state.value


async def test_a_bridge_protects_its_task_while_a_job_runs_and_gives_protection_up_when_it_ends(tmp_path: Path) -> None:
    with local_http(_agent) as agent:
        async with _bridge(tmp_path, ecs_agent_uri=f"{agent.url}/api/task", ecs_protection_minutes=5) as store:
            await asyncio.sleep(0.3)
            assert [] == agent.asked, "an idle bridge asks for nothing"
            (tmp_path / "wait").touch()
            await store.submit(message("one", while_exists=str(tmp_path / "wait")))
            await _until(lambda: agent.asked)
            assert (await store.jobs.find("one")).finished_at is None, "it is asked while the job runs"  # type: ignore[union-attr]
            (tmp_path / "wait").unlink()
            assert "succeeded" == await _ended(store, "one")

    assert [{"ProtectionEnabled": True, "ExpiresInMinutes": 5}, {"ProtectionEnabled": False}] == _states(agent)


@pytest.mark.parametrize(
    "refusal",
    [
        (400, b'{"error": {"Code": "AccessDeniedException", "Message": "no"}}'),
        (200, b'{"failure": {"Reason": "DEPLOYMENT_BLOCKED", "Detail": "no"}}'),
        (500, b"\xff"),
    ],
)
async def test_an_agent_that_refuses_stops_no_work(tmp_path: Path, refusal: tuple[int, bytes]) -> None:
    with local_http(lambda _: refusal) as agent:
        async with _bridge(tmp_path, ecs_agent_uri=f"{agent.url}/api/task") as store:
            await store.submit(message("one", seconds=0.3))
            assert "succeeded" == await _ended(store, "one")

    assert {"ProtectionEnabled": True, "ExpiresInMinutes": 60} in _states(agent)


async def test_an_agent_that_is_not_there_stops_no_work(tmp_path: Path) -> None:
    async with _bridge(tmp_path, ecs_agent_uri="http://127.0.0.1:1/api/task") as store:
        await store.submit(message("one", seconds=0.3))
        assert "succeeded" == await _ended(store, "one")


async def test_protection_is_turned_off_by_setting(tmp_path: Path) -> None:
    with local_http(_agent) as agent:
        async with _bridge(tmp_path, ecs_agent_uri=f"{agent.url}/api/task", ecs_protection=False) as store:
            await store.submit(message("one"))
            await _ended(store, "one")

    assert [] == agent.asked


async def test_protection_is_renewed_while_any_job_runs_and_outlives_a_short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy = moved_clock(monkeypatch), True
    received = StepTaken(step=Step.RECEIVED, job_key="", system="", seconds=0)
    with local_http(_agent) as agent:
        service = LocalService(agent.url, variable="ECS_AGENT_URI")
        # A minute of protection is renewed every 20 s; as this one lasts no time at all, it is renewed at every look.
        protection = TaskProtection(service, busy=lambda: busy, minutes=0, linger_seconds=600, look_seconds=0.05)
        stop = asyncio.Event()
        running = asyncio.create_task(protection.run(stop))
        protection.on_step(received)
        await _until(lambda: len(agent.asked) >= 3)
        busy = False
        await asyncio.sleep(0.1)
        busy = True
        protection.on_step(received)
        await asyncio.sleep(0.2)
        assert all(json.loads(asked.body)["ProtectionEnabled"] for asked in agent.asked), "a pause between two jobs gives nothing up"
        busy = False
        for _ in range(100):
            if not json.loads(agent.asked[-1].body)["ProtectionEnabled"]:
                break
            clock.sleep(601)
            await asyncio.sleep(0.1)
        assert not json.loads(agent.asked[-1].body)["ProtectionEnabled"]
        stop.set()
        await asyncio.wait_for(running, 60)
        assert not protection.protected


def test_an_address_that_is_none_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="ECS_AGENT_URI: 'nonsense'"):
        LocalService("nonsense", variable="ECS_AGENT_URI")


def test_the_agent_is_found_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECS_AGENT_URI", "http://169.254.170.2/api/x")

    assert "http://169.254.170.2/api/x" == load().ecs_agent_uri


async def test_whatever_goes_wrong_with_the_machine_the_jobs_go_on() -> None:
    class BrokenProtection:
        def on_step(self, taken: StepTaken) -> None:
            return

        async def run(self, stop: asyncio.Event) -> None:
            raise ZeroDivisionError

    ended = asyncio.Event()
    ended.set()
    await asyncio.wait_for(Machine(protection=BrokenProtection()).run(ended), 60)  # type: ignore[arg-type]
