"""Whether a slide waits for a share that has left no word: by what any ledger says of its job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import NotYetError
from bridge.job import Job, Outcome
from bridge.ledger.port import Claim, Counted
from bridge.results import ResultStore
from bridge.store import Store
from bridge.systems.wsi.shares import Brought, SharePlace, SharingPolicy, gathered
from tests.support.bridge.recorded_context import RecordedContext

KEYS = ["slide/share/0-of-2", "slide/share/1-of-2"]
SHARE = Job(key=KEYS[1], system="wsi", request={})
WORD = Brought(job_key=KEYS[0], runs=((1, 2),))


class Slide:
    """One of whose two shares has left word."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._place = SharePlace(ResultStore(str(folder)), "slide", 2)
        self._store = store

    async def waits(self) -> bool:
        """For the other share."""
        await self._place.leave(0, WORD)
        try:
            found = await gathered(self._place, KEYS, SharingPolicy(), RecordedContext(), self._store.jobs)
        except NotYetError:
            return True
        assert {0: WORD} == found
        return False


@pytest.fixture
def slide(tmp_path: Path, store: Store) -> Slide:
    return Slide(tmp_path, store)


async def claimed(store: Store, job: Job = SHARE) -> Claim:
    claim = await store.ledger.claim(job, worker="another", lease_seconds=60)
    assert isinstance(claim, Claim)
    return claim


async def given_up(store: Store, job: Job = SHARE) -> None:
    await store.ledger.finish(await claimed(store, job), Outcome(succeeded=False, result={}), reason="given up")


async def test_a_share_that_nobody_has_begun_is_waited_for(store: Store, slide: Slide) -> None:
    assert await slide.waits(), "its message has not come yet"
    await store.jobs.announce(SHARE)
    assert await slide.waits()


async def test_a_share_that_is_worked_on_or_is_to_be_tried_again_is_waited_for(store: Store, slide: Slide) -> None:
    claim = await claimed(store)
    assert await slide.waits()
    await store.ledger.release(claim, delay_seconds=60.0, error="the storage is down", counted=Counted.ATTEMPT)
    assert await slide.waits()


async def test_a_share_that_was_given_up_is_not_waited_for_until_it_is_begun_anew(store: Store, slide: Slide) -> None:
    await given_up(store)
    assert not await slide.waits()
    assert await store.reopen(SHARE.key)
    assert await slide.waits()
    await claimed(store)
    assert await slide.waits()


async def test_a_share_of_which_the_ledger_has_forgotten_that_it_was_given_up_is_waited_for(store: Store, slide: Slide) -> None:
    await given_up(store)
    assert 1 == await store.pruner.prune(keep_seconds=-1.0)
    assert await slide.waits()


async def test_a_share_that_succeeded_and_left_no_word_is_not_waited_for(store: Store, slide: Slide) -> None:
    """It found the slide done, which was asked for anew since."""
    await store.ledger.finish(await claimed(store), Outcome(succeeded=True, result={}))
    assert not await slide.waits()


async def test_the_end_of_a_job_whose_key_only_starts_as_a_shares_is_not_the_shares(store: Store, slide: Slide) -> None:
    await given_up(store, replace(SHARE, key=f"{SHARE.key}1"))
    assert await slide.waits()
