"""Shares of a slide that are given up, or come when the slide is done: nobody waits for them, and nothing of them is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from bridge.errors import NotYetError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Job, Outcome, Write
from bridge.ledger.port import Claim, State
from bridge.served import open_systems
from bridge.settings import load
from bridge.store import Store, open_store
from bridge.systems.port import Context
from bridge.systems.wsi.handler import SlideHandler
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import refuse, scripted_server
from tests.support.bridge.slide_shares import IMPATIENT, Interrupted, Place, ended, left, placed, whole, working


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as place:
        yield place


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:
        yield store


class CutOff:
    """Works on slides, but is cut off in the first share as soon as some of its tiles are saved."""

    system = "wsi"

    def __init__(self, handler: SlideHandler) -> None:
        self._handler = handler
        self.parse, self.failure = handler.parse, handler.failure

    async def handle(self, job: Job, context: Context) -> Outcome:
        return await self._handler.handle(job, CutOffContext(context) if job.request.get("share") == 0 else context)


class CutOffContext:
    """A worker's context, until some tiles are saved."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.claim, self.report = context.claim, context.report

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        await self._context.checkpoint(saved, writes)
        if saved.get("tiles_done"):
            raise TransientError("cut off")


async def submit(store: Store, messages: Sequence[bytes]) -> None:
    for message in messages:
        await store.submit(message)


async def test_a_share_that_was_given_up_is_not_waited_for_and_what_it_saved_counts(place: Place, store: Store) -> None:
    """As after too many tries, or the loss of too many servers: it has left no word, and the ledger alone knows."""
    expected = await whole(place)
    keys = [job.key for job in place.jobs("split", 2)]
    await submit(store, place.messages("split", 2))
    async with working(store, CutOff(place.handler(jobs=store.jobs)), max_attempts=1):
        jobs = await ended(store, *keys)
    share, merged = jobs[keys[1]].result, jobs["split"].result

    assert [State.FAILED, State.SUCCEEDED, State.SUCCEEDED] == [jobs[key].state for key in keys]
    assert "given up after 1 attempts: cut off" == jobs[keys[0]].last_error
    assert share is not None
    assert merged is not None
    assert share["tiles_analyzed"] < merged["tiles_resumed"] <= merged["tiles_analyzed"]
    assert expected == place.files("split", jobs["split"].fence)
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_share_that_was_given_up_and_is_replayed_is_waited_for_again(place: Place, store: Store) -> None:
    expected = await whole(place)
    *shares, own = place.messages("split", 2)
    keys = [job.key for job in place.jobs("split", 2)]
    await submit(store, shares)
    async with working(store, CutOff(place.handler(jobs=store.jobs)), max_attempts=1):
        await ended(store, *keys[:2])
    [letter] = await store.dead_letters.list()
    # The slide's own job comes first.
    await store.submit(own)
    await store.replay(letter.id)
    async with working(store, place.handler(jobs=store.jobs)):
        jobs = await ended(store, *keys)
    merged = jobs["split"].result

    assert merged is not None
    assert (True, merged["tiles_analyzed"]) == (jobs["split"].fence > 1, merged["tiles_resumed"])
    assert expected == place.files("split", jobs["split"].fence)
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_share_that_is_replayed_when_the_slide_is_done_does_nothing(place: Place, store: Store) -> None:
    keys = [job.key for job in place.jobs("split", 2)]
    await submit(store, place.messages("split", 2))
    async with working(store, CutOff(place.handler(jobs=store.jobs)), max_attempts=1):
        fence = (await ended(store, *keys))["split"].fence
    expected = place.files("split", fence)
    [letter] = await store.dead_letters.list()
    await store.replay(letter.id)
    async with working(store, place.handler(jobs=store.jobs)):
        jobs = await ended(store, *keys)

    assert {"share": 0, "skipped": "the slide is done"} == jobs[keys[0]].result
    assert (fence, expected) == (jobs["split"].fence, place.files("split", fence))
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_slide_that_is_asked_for_anew_when_the_ledger_has_forgotten_it_is_not_waited_for(place: Place, store: Store) -> None:
    """What says that it is done outlives the ledger's rows: its shares do nothing, so nothing will come of them."""
    expected = await whole(place)
    jobs = place.jobs("split", 2)
    for job in jobs:
        await place.handler().handle(job, RecordedContext())
    await submit(store, place.messages("split", 2))
    async with working(store, place.handler(jobs=store.jobs)):
        found = await ended(store, *(job.key for job in jobs))

    assert {"share": 0, "skipped": "the slide is done"} == found[jobs[0].key].result
    assert expected == place.files("split", found["split"].fence)


async def test_a_bridge_as_its_settings_make_it_does_not_wait_for_a_share_that_was_given_up(place: Place) -> None:
    first, second, own = place.jobs("split", 2)
    await place.handler().handle(second, RecordedContext())
    settings = load(database=str(place.folder / "bridge.db"), inference=place.address, results=place.results.root)
    async with open_store(settings) as store, open_systems(settings, store) as systems:
        claim = await store.ledger.claim(first, worker="lost", lease_seconds=60)
        assert isinstance(claim, Claim)
        await store.ledger.finish(claim, Outcome(succeeded=False, result={}), reason="given up")
        [handler] = [handler for handler in systems.handlers if handler.system == own.system]
        await handler.handle(own, RecordedContext())

    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_ledger_that_is_out_of_reach_costs_the_slide_no_attempt(place: Place, store: Store) -> None:
    *_, own = place.jobs("split", 2)
    await store.database.change(text("ALTER TABLE jobs RENAME TO others"), {})
    with pytest.raises(TransientError):
        await store.jobs.find("split")
    with pytest.raises(NotYetError, match="0 of the slide's 2 shares"):
        await place.handler(jobs=store.jobs).handle(own, RecordedContext())


async def test_what_a_share_saved_before_it_failed_for_good_counts_and_is_removed(place: Place) -> None:
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    interrupted = Interrupted()
    with pytest.raises(TransientError, match="cut off"):
        await place.handler().handle(first, interrupted)
    async with scripted_server() as server, InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client:
        server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the slide is damaged")]
        handler = SlideHandler(client=client, results=place.results)
        with pytest.raises(PermanentError, match="damaged"):
            await handler.handle(first, RecordedContext(fence=2, checkpoint=interrupted.checkpoints[-1]))
    share = await place.handler().handle(second, RecordedContext())
    merged = await place.handler().handle(own, RecordedContext())

    assert expected == place.files("split")
    assert share.result["tiles_analyzed"] < merged.result["tiles_resumed"] <= merged.result["tiles_analyzed"]
    assert ["shares/split/2/done"] == left(place, "split")


class Overtaken(RecordedContext):
    """Has the slide merged by another worker, which waits no longer, as soon as some of its own tiles are saved."""

    def __init__(self, place: Place, own: Job) -> None:
        super().__init__()
        self._place = place
        self._own: Job | None = own

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        await super().checkpoint(saved, writes)
        if self._own is not None and saved.get("tiles_done"):
            own, self._own = self._own, None
            await self._place.handler(IMPATIENT).handle(own, RecordedContext())


async def test_a_share_that_ends_when_the_slide_is_done_leaves_nothing(place: Place) -> None:
    expected = await whole(place)
    first, _, own = place.jobs("split", 2)
    late = await place.handler().handle(first, Overtaken(place, own))

    assert {"share": 0, "skipped": "the slide is done"} == late.result
    assert expected == place.files("split")
    assert ["shares/split/2/done"] == left(place, "split")
