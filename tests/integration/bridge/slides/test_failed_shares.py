"""Shares of a slide that are given up, or come when the slide is done: nobody waits for them, and nothing of them is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from bridge.errors import NotYetError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Job, Outcome, Write
from bridge.ledger.port import Claim
from bridge.served import has_failed
from bridge.settings import load
from bridge.store import open_store
from bridge.systems.wsi.handler import SlideHandler
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import refuse, scripted_server
from tests.support.bridge.slide_shares import IMPATIENT, Place, placed, whole


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as place:
        yield place


def left(place: Place, key: str) -> list[str]:
    """Files that are none of the slide's own results."""
    results = place.folder / "results"
    own = results / "slides" / key / "1"
    return sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file() and path.parent != own)


async def test_a_share_that_was_given_up_is_not_waited_for(place: Place) -> None:
    """As after too many tries, or the loss of too many servers: it has left no word, and the ledger alone knows."""
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    async with open_store(load(database=str(place.folder / "bridge.db"))) as store:
        handler = place.handler(has_failed=partial(has_failed, store))
        await handler.handle(first, RecordedContext())
        claim = await store.ledger.claim(second, worker="lost", lease_seconds=60)
        assert isinstance(claim, Claim)
        with pytest.raises(NotYetError, match="1 of the slide's 2 shares"):
            await handler.handle(own, RecordedContext())
        await store.ledger.finish(claim, Outcome(succeeded=False, result={}), reason="given up")
        merged = await handler.handle(own, RecordedContext())

    assert expected == place.files("split")
    assert 0 < merged.result["tiles_resumed"] < merged.result["tiles_analyzed"]


class Interrupted(RecordedContext):
    """Is cut off as soon as some tiles are saved."""

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        await super().checkpoint(saved, writes)
        if saved["tiles_done"]:
            raise TransientError("cut off")


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
    assert ["shares/split/2/done"] == [name for name in left(place, "split") if not name.startswith("slides/whole/")]


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
    assert ["shares/split/2/done"] == [name for name in left(place, "split") if not name.startswith("slides/whole/")]
