"""One slide as several jobs, against a real inference server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from bridge.errors import NotYetError, PermanentError, PoisonError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Write
from bridge.settings import load
from bridge.store import open_store
from bridge.systems.wsi import messages
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.shares import SharingPolicy
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import refuse, scripted_server
from tests.support.bridge.slide_shares import IMPATIENT, QUICK, Place, ended, picture, placed, whole, working
from tests.support.slides.colour_profiles import linear_profile
from tests.support.slides.painted import write_svs


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as place:
        yield place


@pytest.mark.parametrize("shared_storage", [True, False])
async def test_shares_done_at_the_same_time_are_merged_into_the_files_of_the_whole(place: Place, shared_storage: bool) -> None:
    expected = await whole(place)
    handler = place.handler(shared_storage=shared_storage)
    *shares, own = place.jobs("split", 3)
    # The slide's own job comes first here, and is put back.
    context = RecordedContext()
    with pytest.raises(NotYetError, match="0 of the slide's 3 shares"):
        await handler.handle(own, context)
    done = await asyncio.gather(*(handler.handle(job, RecordedContext()) for job in shares))
    outcomes = [await handler.handle(own, RecordedContext(fence=2, checkpoint=context.checkpoints[-1])), *done]

    assert expected == place.files("split", 2)
    assert (
        outcomes[0].result["tiles_analyzed"] == outcomes[0].result["tiles_resumed"] == sum(o.result["tiles_analyzed"] for o in outcomes[1:])
    )
    # One event, of the slide's own job; and of the parts nothing is left.
    assert [["completed"], [], [], []] == [[event.type for event in outcome.events] for outcome in outcomes]
    assert [] == list((place.folder / "results").rglob("*.part"))


@pytest.mark.parametrize("shares", [1, 2])
async def test_profile_and_assumed_resolution_of_a_job_reach_the_report(place: Place, shares: int) -> None:
    write_svs(place.folder / "slide.svs", picture(), mpp=None, profile=linear_profile())
    for job in place.jobs("managed", shares, apply_icc_profile=True, assumed_mpp=0.5):
        await place.handler().handle(job, RecordedContext())
    slide = json.loads(place.files("managed")["analysis.json"])["slide"]

    assert (True, 0.5, "request") == (slide["icc_profile_applied"], slide["mpp_x"], slide["mpp_source"])


async def test_the_resolution_that_a_slide_tells_comes_before_the_assumed(place: Place) -> None:
    (job,) = place.jobs("told", 1, assumed_mpp=0.25)
    await place.handler().handle(job, RecordedContext())
    slide = json.loads(place.files("told")["analysis.json"])["slide"]

    assert (False, 0.5, "slide") == (slide["icc_profile_applied"], slide["mpp_x"], slide["mpp_source"])


async def test_messages_of_shares_have_the_same_keys_whenever_they_are_made(place: Place) -> None:
    keys = [job.key for job in place.jobs("slide", 2)]
    assert ["slide/share/0-of-2", "slide/share/1-of-2", "slide"] == keys == [job.key for job in place.jobs("slide", 2)]


async def test_a_share_that_never_comes_is_computed_by_the_merging_job(place: Place) -> None:
    expected = await whole(place)
    first, _, own = place.jobs("split", 2)
    share = await place.handler().handle(first, RecordedContext())
    merged = await place.handler(IMPATIENT).handle(own, RecordedContext())

    assert expected == place.files("split")
    assert share.result["tiles_analyzed"] == merged.result["tiles_resumed"] < merged.result["tiles_analyzed"]


async def test_patience_is_kept_by_whoever_takes_the_merging_job_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, own = place.jobs("split", 2)
    policy = SharingPolicy(patience_seconds=300.0, least_pause_seconds=600.0, most_pause_seconds=600.0)
    passed, real = 0.0, time.time
    monkeypatch.setattr(time, "time", lambda: real() + passed)
    saved: dict[str, Any] = {}
    pauses = []
    for fence in (1, 2):
        context = RecordedContext(fence=fence, checkpoint=saved)
        with pytest.raises(NotYetError) as put_back:
            await place.handler(policy).handle(own, context)
        # Written once: nothing is new the second time.
        saved = dict(context.checkpoints[-1]) if context.checkpoints else saved
        assert bool(context.checkpoints) is (fence == 1)
        pauses.append(put_back.value.retry_after)
        passed += 200.0
    merged = await place.handler(policy).handle(own, RecordedContext(fence=3, checkpoint=saved))

    assert 300 >= pauses[0] > 200 > 100 >= pauses[1] > 0, "it comes back when its patience ends"
    assert 0 == merged.result["tiles_resumed"] < merged.result["tiles_analyzed"]


async def test_a_merge_that_has_begun_does_not_wait_again(place: Place) -> None:
    first, _, own = place.jobs("split", 2)
    await place.handler().handle(first, RecordedContext())
    merged = await place.handler(SharingPolicy()).handle(own, RecordedContext(fence=2, checkpoint={"runs": [], "others": True}))

    assert 0 < merged.result["tiles_resumed"] < merged.result["tiles_analyzed"]


async def test_two_slides_with_shares_get_done_in_one_place_whatever_comes_first(place: Place) -> None:
    expected = await whole(place)
    async with open_store(load(database=str(place.folder / "bridge.db"))) as store:
        for own in ("a", "b"):  # before their shares, as a queue without order may give them
            await store.submit(place.messages(own, 2)[-1])
        for share in (*place.messages("a", 2)[:-1], *place.messages("b", 2)[:-1]):
            await store.submit(share)
        async with working(store, place.handler()):
            jobs = await ended(store, *(job.key for own in ("a", "b") for job in place.jobs(own, 2)))

    for job in (jobs["a"], jobs["b"]):
        assert job.result is not None
        assert (0, job.result["tiles_resumed"]) == (job.attempts, job.result["tiles_analyzed"])
        assert expected == place.files(job.key, job.fence)


async def test_a_share_that_was_done_twice_counts_once(place: Place) -> None:
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    for fence in (1, 2):  # a worker whose lease ran out, and the one that took over
        await place.handler().handle(first, RecordedContext(fence=fence))
    await place.handler().handle(second, RecordedContext())
    merged = await place.handler().handle(own, RecordedContext())

    assert expected == place.files("split")
    assert merged.result["tiles_analyzed"] == merged.result["tiles_resumed"]


async def test_a_share_that_cannot_be_done_holds_nobody_up(place: Place) -> None:
    jobs = place.jobs("split", 2)
    async with scripted_server() as server, InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client:
        server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the slide is empty")] * 3
        handler = SlideHandler(client=client, results=place.results, sharing=QUICK)
        for job in jobs:
            with pytest.raises(PermanentError, match="empty"):
                await asyncio.wait_for(handler.handle(job, RecordedContext()), timeout=60)
    # One event, of the slide's own job.
    assert [[], [], ["failed"]] == [[event.type for event in handler.failure(job, "empty").events] for job in jobs]


async def test_a_share_that_comes_late_does_nothing(place: Place) -> None:
    first, second, own = place.jobs("split", 2)
    await place.handler().handle(first, RecordedContext())
    await place.handler(IMPATIENT).handle(own, RecordedContext())
    late = await place.handler().handle(second, RecordedContext())

    assert {"share": 1, "skipped": "the slide is done"} == late.result
    assert [] == list((place.folder / "results").rglob("*.part"))


async def test_the_merging_job_is_gone_on_with_by_another_worker(place: Place) -> None:
    expected = await whole(place)
    first, _, own = place.jobs("split", 2)
    await place.handler().handle(first, RecordedContext())
    context = RecordedContext()
    outcome = await place.handler(IMPATIENT).handle(own, context)
    # As after a crash in the middle of the tiles that no share had brought.
    await place.handler().handle(first, RecordedContext())
    (place.folder / "results" / "shares" / "split" / "2" / "done").unlink()
    saved = next(each for each in context.checkpoints if "runs" in each)
    assert saved["others"]
    again = await place.handler(IMPATIENT).handle(own, RecordedContext(fence=2, checkpoint={"others": True}))

    assert expected == place.files("split", 2)
    assert outcome.result["tiles_analyzed"] == again.result["tiles_analyzed"]


class Replacing(RecordedContext):
    """Replaces the slide as soon as something of it is saved."""

    def __init__(self, slide: Path) -> None:
        super().__init__()
        self._slide = slide

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        await super().checkpoint(saved, writes)
        write_svs(self._slide, np.ascontiguousarray(picture()[::-1]))


async def test_a_slide_that_is_replaced_is_analysed_again_from_the_start(place: Place) -> None:
    (job,) = place.jobs("replaced", 1)
    context = Replacing(place.folder / "slide.svs")
    with pytest.raises(TransientError, match="was replaced or removed while it was read"):
        await place.handler().handle(job, context)
    assert context.checkpoints[-1]["runs"]
    again = await place.handler().handle(job, RecordedContext(fence=2, checkpoint=context.checkpoints[-1]))

    assert "another state of the slide" in again.result["started_over"]
    assert await whole(place) == place.files("replaced", 2)


async def test_shares_of_a_slide_that_was_replaced_before_they_are_merged_do_not_count(place: Place) -> None:
    *shares, own = place.jobs("split", 2)
    for share in shares:
        await place.handler().handle(share, RecordedContext())
    write_svs(place.folder / "slide.svs", np.ascontiguousarray(picture()[::-1]))
    merged = await place.handler().handle(own, RecordedContext())

    assert (0, True) == (merged.result["tiles_resumed"], "another state" in merged.result["started_over"])
    assert await whole(place) == place.files("split")


@pytest.mark.parametrize("asked", [{"shares": 65}, {"shares": 0}, {"shares": 2, "share": 2, "merged_by": "a"}, {"shares": 2, "share": 0}])
def test_shares_that_make_no_sense_are_poison(asked: dict[str, Any]) -> None:
    body = json.dumps({"system": "wsi", "key": "k", "request": {"slide_uri": "/a.svs", **asked}}).encode()
    with pytest.raises(PoisonError, match="the request is not right"):
        messages.job_of(body)
