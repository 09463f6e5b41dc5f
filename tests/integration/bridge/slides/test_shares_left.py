"""What is left of shares that end at an awkward moment: nothing, once their slide is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from bridge.errors import PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Job, Write
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.shares import Brought, SharePlace
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import refuse, scripted_server
from tests.support.bridge.slide_shares import IMPATIENT, Interrupted, Place, left, picture, placed, whole
from tests.support.slides.painted import write_svs


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as place:
        yield place


async def interrupted(place: Place, job: Job) -> Mapping[str, Any]:
    """What a share has in the ledger that was cut off."""
    context = Interrupted()
    with pytest.raises(TransientError, match="cut off"):
        await place.handler().handle(job, context)
    return context.checkpoints[-1]


async def test_a_share_that_was_cut_off_and_comes_back_when_the_slide_is_done_leaves_nothing(place: Place) -> None:
    first, _, own = place.jobs("split", 2)
    saved = await interrupted(place, first)
    await place.handler(IMPATIENT).handle(own, RecordedContext())
    late = await place.handler().handle(first, RecordedContext(fence=2, checkpoint=saved))

    assert {"share": 0, "skipped": "the slide is done"} == late.result
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_share_that_started_over_leaves_nothing_of_its_first_try(place: Place) -> None:
    first, second, own = place.jobs("split", 2)
    saved = await interrupted(place, first)
    write_svs(place.folder / "slide.svs", np.ascontiguousarray(picture()[::-1]))
    expected = await whole(place)
    for share in (first, second):
        await place.handler().handle(share, RecordedContext(fence=2, checkpoint=saved if share is first else {}))
    merged = await place.handler().handle(own, RecordedContext())

    assert expected == place.files("split")
    assert merged.result["tiles_analyzed"] == merged.result["tiles_resumed"]
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_share_that_fails_for_good_when_the_slide_is_done_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, own = place.jobs("split", 2)
    saved = await interrupted(place, first)
    async with scripted_server() as server, InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client:
        server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the slide is damaged")]
        handler = SlideHandler(client=client, results=place.results)
        leave = SharePlace.leave

        async def overtaken(self: SharePlace, index: int, brought: Brought) -> bool:
            await place.handler(IMPATIENT).handle(own, RecordedContext())
            return await leave(self, index, brought)

        monkeypatch.setattr(SharePlace, "leave", overtaken)
        with pytest.raises(PermanentError, match="damaged"):
            await handler.handle(first, RecordedContext(fence=2, checkpoint=saved))

    assert ["shares/split/2/done"] == left(place, "split")


@pytest.mark.parametrize("moment", ["before its word", "when its word is there", "after its last look"])
async def test_a_slide_that_gets_done_while_a_share_leaves_word_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    await place.handler().handle(second, RecordedContext())
    leave, done = SharePlace.leave, SharePlace.done
    looks: list[bool] = []

    async def merge() -> None:
        monkeypatch.setattr(SharePlace, "leave", leave)
        monkeypatch.setattr(SharePlace, "done", done)
        await place.handler(IMPATIENT).handle(own, RecordedContext())

    async def leaving(self: SharePlace, index: int, brought: Brought) -> bool:
        if moment == "before its word":
            await merge()
        left_word = await leave(self, index, brought)
        if moment == "when its word is there":
            await merge()
        return left_word

    async def looking(self: SharePlace) -> bool:
        looks.append(await done(self))
        if moment == "after its last look" and len(looks) == 2:
            await merge()
        return looks[-1]

    monkeypatch.setattr(SharePlace, "leave", leaving)
    monkeypatch.setattr(SharePlace, "done", looking)
    await place.handler().handle(first, RecordedContext())

    assert expected == place.files("split")
    assert ["shares/split/2/done"] == left(place, "split")


class Beside(RecordedContext):
    """Another worker does a share as soon as some tiles of this job are saved."""

    def __init__(self, place: Place, share: Job) -> None:
        super().__init__()
        self._place = place
        self._share: Job | None = share

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        await super().checkpoint(saved, writes)
        if self._share is not None and saved.get("tiles_done"):
            share, self._share = self._share, None
            await self._place.handler().handle(share, RecordedContext())


async def test_a_share_that_ends_while_the_others_are_merged_leaves_nothing(place: Place) -> None:
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    await place.handler().handle(second, RecordedContext())
    await place.handler(IMPATIENT).handle(own, Beside(place, first))

    assert expected == place.files("split")
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_share_that_ends_just_before_its_slide_is_said_to_be_done_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    await place.handler().handle(second, RecordedContext())
    close = SharePlace.close

    async def closing(self: SharePlace) -> None:
        share = await place.handler().handle(first, RecordedContext())
        assert "skipped" not in share.result
        await close(self)

    monkeypatch.setattr(SharePlace, "close", closing)
    await place.handler(IMPATIENT).handle(own, RecordedContext())

    assert expected == place.files("split")
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_merge_that_was_killed_goes_on_with_what_a_share_that_was_given_up_had_saved(place: Place) -> None:
    expected = await whole(place)
    first, second, own = place.jobs("split", 2)
    await interrupted(place, first)
    share = await place.handler().handle(second, RecordedContext())
    merged = await place.handler().handle(own, RecordedContext(fence=2, checkpoint={"runs": [], "others": True}))

    assert expected == place.files("split", 2)
    assert share.result["tiles_analyzed"] < merged.result["tiles_resumed"] <= merged.result["tiles_analyzed"]
    assert ["shares/split/2/done"] == left(place, "split")


class Killed(RecordedContext):
    """Before the ledger hears of the first part that was written."""

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        if "runs" in saved:
            raise asyncio.CancelledError
        await super().checkpoint(saved, writes)


async def test_tries_that_were_killed_before_the_ledger_heard_of_their_parts_leave_nothing(place: Place) -> None:
    expected = await whole(place)
    jobs = place.jobs("split", 2)
    # One of the shares never comes, so that the merge computes something too.
    for job in (jobs[0], jobs[2]):
        with pytest.raises(asyncio.CancelledError):
            await place.handler(IMPATIENT).handle(job, Killed())
        await place.handler(IMPATIENT).handle(job, RecordedContext(fence=2))

    assert expected == place.files("split", 2)
    assert ["shares/split/2/done"] == left(place, "split")


async def test_a_merge_that_was_killed_when_its_result_was_saved_removes_the_rest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    *shares, own = place.jobs("split", 2)
    for share in shares:
        await place.handler().handle(share, RecordedContext())
    context = RecordedContext()

    async def killed(self: SharePlace) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(SharePlace, "close", killed)
        with pytest.raises(asyncio.CancelledError):
            await place.handler().handle(own, context)
    assert "shares/split/2/0.json" in left(place, "split")
    merged = await place.handler().handle(own, RecordedContext(fence=2, checkpoint=context.checkpoints[-1]))

    assert merged.result == context.checkpoints[-1]["finished"]["result"]
    assert ["shares/split/2/done"] == left(place, "split")
