"""What is asked for at the same time is done together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bridge import gathering
from bridge.errors import TransientError
from bridge.gathering import Gatherer


class Work:
    """Answers numbers with their double; the first batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, asked: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(asked))
        self.began.set()
        await self.go.wait()
        if -1 in asked:
            raise ValueError("this cannot be done")
        if -2 in asked:
            raise TransientError("the database is away")
        return [TransientError("only this one") if one == 0 else 2 * one for one in asked]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of the machine is no batch that hangs."""
    monkeypatch.setattr(gathering, "_PATIENCE_SECONDS", 3600.0)


async def test_what_is_asked_while_a_batch_is_under_way_makes_the_next_one() -> None:
    work = Work()
    gatherer: Gatherer[int, int] = Gatherer(work)
    first = asyncio.create_task(gatherer.ask(1))
    await work.began.wait()
    others = [asyncio.create_task(gatherer.ask(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)

    work.go.set()

    assert [2, 4, 6, 8] == await asyncio.gather(first, *others)
    assert [[1], [2, 3, 4]] == work.batches


async def test_a_batch_that_hangs_holds_the_next_one_up_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_PATIENCE_SECONDS", 0.1)
    work = Work()
    gatherer: Gatherer[int, int] = Gatherer(work)
    asks = [asyncio.create_task(gatherer.ask(1))]
    await work.began.wait()
    asks.append(asyncio.create_task(gatherer.ask(2)))
    async with asyncio.timeout(60):
        while len(work.batches) < 2:
            await asyncio.sleep(0.01)

    work.go.set()

    assert [2, 4] == await asyncio.gather(*asks)


async def test_two_of_the_same_are_never_in_one_batch() -> None:
    work = Work()
    work.go.set()
    gatherer: Gatherer[int, int] = Gatherer(work, identity=lambda asked: asked)

    assert [2, 2, 4] == await asyncio.gather(gatherer.ask(1), gatherer.ask(1), gatherer.ask(2))
    assert [[1, 2], [1]] == work.batches


async def test_no_batch_is_larger_than_asked() -> None:
    work = Work()
    work.go.set()
    gatherer: Gatherer[int, int] = Gatherer(work, most=2)

    await asyncio.gather(*(gatherer.ask(number) for number in range(1, 6)))

    assert [[1, 2], [3, 4], [5]] == work.batches


async def test_what_cannot_be_done_does_not_spoil_the_others() -> None:
    work = Work()
    work.go.set()
    gatherer: Gatherer[int, int] = Gatherer(work)

    answers = await asyncio.gather(*(gatherer.ask(number) for number in (1, -1, 2)), return_exceptions=True)

    assert (2, 4) == (answers[0], answers[2])
    assert isinstance(answers[1], ValueError)


async def test_an_answer_may_be_an_error_of_one_alone() -> None:
    work = Work()
    work.go.set()
    gatherer: Gatherer[int, int] = Gatherer(work)

    answers = await asyncio.gather(gatherer.ask(0), gatherer.ask(1), return_exceptions=True)

    assert isinstance(answers[0], TransientError)
    assert 2 == answers[1]


async def test_a_database_that_is_away_is_away_for_all_and_asked_once() -> None:
    work = Work()
    work.go.set()
    gatherer: Gatherer[int, int] = Gatherer(work)

    answers = await asyncio.gather(gatherer.ask(-2), gatherer.ask(1), return_exceptions=True)

    assert all(isinstance(answer, TransientError) for answer in answers)
    assert [[-2, 1]] == work.batches


async def test_who_goes_away_before_the_turn_is_left_out() -> None:
    work = Work()
    gatherer: Gatherer[int, int] = Gatherer(work)
    first = asyncio.create_task(gatherer.ask(1))
    await work.began.wait()
    gone, stays = asyncio.create_task(gatherer.ask(2)), asyncio.create_task(gatherer.ask(3))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone

    work.go.set()

    assert [2, 6] == await asyncio.gather(first, stays)
    assert [[1], [3]] == work.batches
