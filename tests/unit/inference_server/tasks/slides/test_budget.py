"""Memory that slides share: how much each gets, and that all together never take more."""

from __future__ import annotations

import asyncio
import random

import pytest

from inference_server.tasks.slides.budget import CacheBudget, CallBudget


def test_a_slide_keeps_what_it_wants_while_there_is_so_much() -> None:
    budget = CacheBudget(1600)
    assert [600, 700, 300] == [budget.taken(wanted).bytes for wanted in (600, 700, 900)]


def test_a_slide_that_finds_nothing_left_has_a_sixteenth() -> None:
    budget = CacheBudget(1600)
    budget.taken(1600)
    assert [100, 50] == [budget.taken(wanted).bytes for wanted in (900, 50)]


def test_what_a_slide_gives_back_is_there_for_the_next_once() -> None:
    budget = CacheBudget(1600)
    first = budget.taken(1600)
    first.end()
    first.end()
    assert [1000, 600] == [budget.taken(1000).bytes for _ in range(2)]


class Calls:
    """Calls on a budget, and how many pixels they ever held together."""

    def __init__(self, most: int) -> None:
        self.budget = CallBudget(most)
        self.held, self.peak = 0, 0
        self.order: list[str] = []

    async def call(self, pixels: int, name: str = "", *, until: asyncio.Event | None = None) -> None:
        async with self.budget.taken(pixels):
            self.order.append(name)
            self.held += pixels
            self.peak = max(self.peak, self.held)
            await (until.wait() if until else asyncio.sleep(0))
            self.held -= pixels


async def test_calls_never_hold_more_than_there_is() -> None:
    calls, chance = Calls(100), random.Random(5)
    await asyncio.gather(*(calls.call(chance.randint(1, 60)) for _ in range(200)))
    assert 80 < calls.peak <= 100
    assert 0 == calls.held


async def test_what_was_given_back_early_is_not_given_back_again() -> None:
    calls, end = Calls(100), asyncio.Event()
    async with calls.budget.taken(80) as give_back:
        give_back()
        running = [asyncio.create_task(calls.call(80, name, until=end)) for name in ("first", "second")]
        await asyncio.sleep(0.01)
        give_back()
    await asyncio.sleep(0.01)
    assert ["first"] == calls.order
    end.set()
    await asyncio.gather(*running)


async def test_a_call_larger_than_all_goes_alone() -> None:
    calls = Calls(100)
    await asyncio.gather(calls.call(60, "before"), calls.call(250, "large"), calls.call(60, "after"))
    assert (250, ["before", "large", "after"]) == (calls.peak, calls.order)


async def test_a_small_call_does_not_overtake_a_large_one_that_waits() -> None:
    calls, end = Calls(100), asyncio.Event()
    running = [asyncio.create_task(calls.call(pixels, name, until=end)) for pixels, name in ((80, "first"), (90, "large"), (10, "small"))]
    await asyncio.sleep(0.01)
    assert ["first"] == calls.order
    end.set()
    await asyncio.gather(*running)
    assert ["first", "large", "small"] == calls.order


@pytest.mark.parametrize("moment", ["while it waits", "when it is let in"])
async def test_a_call_that_is_given_up_makes_way(moment: str) -> None:
    calls = Calls(100)
    first = calls.budget.taken(80)
    await first.__aenter__()
    given_up, next_one = (asyncio.create_task(calls.call(pixels, name)) for pixels, name in ((90, "given up"), (20, "next")))
    await asyncio.sleep(0.01)
    if moment == "when it is let in":
        # It has not run yet when it is cancelled.
        await first.__aexit__(None, None, None)
    given_up.cancel()
    await asyncio.wait_for(next_one, 60)
    assert ["next"] == calls.order
    if moment == "while it waits":
        await first.__aexit__(None, None, None)
    await asyncio.wait_for(calls.call(100, "all"), 60)
    assert (["next", "all"], 100) == (calls.order, calls.peak)
