"""Server-sent events of running bridges. The work is a trial's; the acceptance test has a real analysis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.http.events import JobEvents
from bridge.http.figures import Figures
from bridge.http.metrics import Metrics
from bridge.http.routes import Routes
from bridge.http.server import HttpServer
from bridge.http.wsi import WsiRoutes
from bridge.job import Job, Outcome, Progress, Units
from bridge.ledger.port import Claim
from bridge.settings import load
from bridge.sources.port import QueueLevel
from bridge.store import Store, open_store
from bridge.systems.wsi import platform_messages

JOB = "7f1de0a4-58a5-4f53-9d7b-0d5dd47c5b0e"
PATH = f"/api/v1/wsi/jobs/{JOB}/events"


@dataclass(frozen=True, kw_only=True)
class Told:
    """One event, or a comment."""

    kind: str
    id: int | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Stream:
    """A client that reads events as they come."""

    def __init__(self, status: int, reader: asyncio.StreamReader) -> None:
        self.status = status
        self._reader = reader

    async def next(self) -> Told | None:
        """The next event or comment; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(60):
            while line := await self._reader.readline():
                text = line.decode().rstrip("\r\n")
                if text.startswith(":"):
                    return Told(kind=text[1:].strip())
                if text == "" and "data" in fields:
                    return Told(kind=fields["event"], id=int(fields["id"]), data=json.loads(fields["data"]))
                name, _, value = text.partition(": ")
                fields[name] = value
        return None

    async def rest(self) -> list[Told]:
        """All that is told until the end."""
        found = []
        while (told := await self.next()) is not None:
            found.append(told)
        return found


@asynccontextmanager
async def listening(address: str, path: str = PATH, *, last: int | None = None) -> AsyncIterator[Stream]:
    """HTTP/1.0, so that the body comes as it is and ends with the connection."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    header = "" if last is None else f"Last-Event-ID: {last}\r\n"
    writer.write(f"GET {path} HTTP/1.0\r\n{header}\r\n".encode())
    status = int((await reader.readline()).split()[1])
    while (await reader.readline()).strip():
        pass
    try:
        yield Stream(status, reader)
    finally:
        writer.close()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Two bridges' views of one ledger."""
    settings = load(database=str(tmp_path / "bridge.db"))
    async with open_store(settings) as one, open_store(settings) as two:
        yield one, two


@pytest.fixture
def serve() -> Callable[..., Any]:
    """Serves a bridge's routes, with other times than in use."""

    @asynccontextmanager
    async def serving(store: Store, **times: Any) -> AsyncIterator[str]:
        events = JobEvents(**{"look_seconds": 0.05, **times})
        figures = Figures(metrics=Metrics(in_flight=lambda: 0), outbox=store.outbox, dead_letters=store.dead_letters, levels=no_levels)
        platform = WsiRoutes(jobs=store.jobs, events=events, submit=store.submit)
        routes = Routes(jobs=store.jobs, figures=figures, events=events, probes={}, more=platform.routes())
        async with HttpServer(routes.application(), "127.0.0.1:0") as server:
            yield server.address

    return serving


async def no_levels() -> tuple[QueueLevel, ...]:
    return ()


def job() -> Job:
    return Job(key=JOB, system=platform_messages.SYSTEM, request={"uploadid": "u"})


async def claimed(store: Store, *, lease: float = 60.0) -> Claim:
    claim = await store.ledger.claim(job(), worker="w", lease_seconds=lease)
    assert isinstance(claim, Claim)
    return claim


async def advance(store: Store, claim: Claim, done: int) -> None:
    units = Units(done=done, total=100, per_second=5.0, seconds_left=(100 - done) / 5)
    await store.ledger.renew(claim, lease_seconds=60, progress=Progress(share=done / 100, stage="tiles", units=units))


async def finish(store: Store, claim: Claim) -> None:
    await store.ledger.finish(claim, Outcome(succeeded=True, result={"result_s3_key": "results/1/u/analysis.json"}))


async def test_progress_is_told_until_the_end_which_ends_the_stream(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    # Another bridge works on it than the one that tells.
    claim = await claimed(stores[0])
    async with serve(stores[1]) as address, listening(address) as stream:
        assert "Processing" == (await stream.next()).data["status"]
        await advance(stores[0], claim, 40)
        told = await stream.next()
        await finish(stores[0], claim)
        rest = await stream.rest()

    assert ("progress", "tiles", 40, 100, 5.0, 12.0, 0.4) == (
        told.kind,
        *(told.data[name] for name in ("stage", "tilesDone", "tilesTotal", "tilesPerSecond", "secondsLeft", "progress")),
    )
    assert [("completed", "Completed", "results/1/u/analysis.json")] == [
        (each.kind, each.data["status"], each.data["resultS3Key"]) for each in rest
    ]


async def test_a_change_of_worker_is_one_stream_and_never_goes_back(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    first = await claimed(stores[0], lease=0.3)
    await stores[0].ledger.renew(first, lease_seconds=0.3, progress=Progress(share=0.6, stage="tiles", units=Units(done=60, total=100)))
    async with serve(stores[0]) as address, listening(address) as stream:
        await stream.next()
        await asyncio.sleep(0.4)
        second = await claimed(stores[1])
        await stores[1].ledger.renew(second, lease_seconds=60, progress=Progress(stage="opening"))
        await advance(stores[1], second, 58)
        await advance(stores[1], second, 70)
        await finish(stores[1], second)
        told = await stream.rest()

    done = [60, *(each.data["tilesDone"] for each in told)]
    assert sorted(done) == done
    assert {"tiles"} == {each.data["stage"] for each in told}
    ids = [each.id for each in told]
    assert sorted(set(ids)) == ids


async def test_who_comes_back_is_told_only_what_is_new(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    claim = await claimed(stores[0])
    async with serve(stores[0], heartbeat_seconds=0.2) as address:
        async with listening(address) as stream:
            seen = (await stream.next()).id
        async with listening(address, last=seen) as stream:
            assert "heartbeat" == (await stream.next()).kind
            await advance(stores[0], claim, 10)
            while (told := await stream.next()).kind == "heartbeat":
                pass
            assert (10, True) == (told.data["tilesDone"], told.id > seen)


async def test_who_has_seen_the_end_is_told_to_stay_away(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    claim = await claimed(stores[0])
    await finish(stores[0], claim)
    async with serve(stores[0]) as address:
        async with listening(address) as stream:
            (end,) = await stream.rest()
        async with listening(address, last=end.id) as stream:
            assert 204 == stream.status


@pytest.mark.parametrize("header", ["-1", "x", "9" * 30])
async def test_an_id_that_is_none_is_as_good_as_none(stores: tuple[Store, Store], serve: Callable[..., Any], header: Any) -> None:
    await finish(stores[0], await claimed(stores[0]))
    async with serve(stores[0]) as address, listening(address, last=header) as stream:
        assert ["completed"] == [each.kind for each in await stream.rest()]


async def test_an_unknown_job_has_no_stream(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    async with serve(stores[0]) as address, listening(address) as stream:
        assert 404 == stream.status


async def test_streams_are_bounded_and_one_that_is_left_makes_room(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    await claimed(stores[0])
    async with serve(stores[0], most_streams=1) as address:
        async with listening(address) as held:
            await held.next()
            for path in (PATH, f"/jobs/{JOB}/events"):
                async with listening(address, path) as refused:
                    assert 503 == refused.status
        async with asyncio.timeout(60):
            while True:
                async with listening(address) as stream:
                    if stream.status == 200:
                        break
                await asyncio.sleep(0.05)


async def test_events_of_any_job_are_told_under_its_key(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    await finish(stores[0], await claimed(stores[0]))
    async with serve(stores[0]) as address, listening(address, f"/jobs/{JOB}/events") as stream:
        (end,) = await stream.rest()
    assert ("completed", "succeeded") == (end.kind, end.data["state"])


async def test_an_open_stream_does_not_keep_the_bridge_from_stopping(stores: tuple[Store, Store], serve: Callable[..., Any]) -> None:
    await claimed(stores[0])
    async with asyncio.timeout(60):
        async with serve(stores[0]) as address:
            listener = listening(address)
            stream = await listener.__aenter__()
            assert (await stream.next()).kind == "progress"
        assert await stream.rest() == []
        await listener.__aexit__(None, None, None)
