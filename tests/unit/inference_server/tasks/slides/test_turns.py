"""Whose calls go first, who is opened, and what is left of those that end early."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from inference_server.models.values import Batching
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.turns import Turn, Turns


def model(*, instances: int = 1, batching: Batching | None = None) -> ModelFacts:
    return ModelFacts(
        name="net",
        version="1",
        engine="onnxruntime:float32",
        inputs=(),
        outputs=(),
        max_batch_size=8,
        sha256="",
        parameters={},
        instances=instances,
        batching=batching or Batching(),
    )


MODEL = model()


async def settled() -> None:
    """All that can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def has_come(waiting: asyncio.Task[object]) -> bool:
    await settled()
    return waiting.done()


def opening(
    turns: Turns, stack: AsyncExitStack, *, analysis: str = "net", priority: int = 0, facts: ModelFacts = MODEL
) -> asyncio.Task[Turn]:
    return asyncio.create_task(opened(turns, stack, analysis=analysis, priority=priority, facts=facts))


async def opened(turns: Turns, stack: AsyncExitStack, *, analysis: str = "net", priority: int = 0, facts: ModelFacts = MODEL) -> Turn:
    async with AsyncExitStack() as own:
        turn = own.enter_context(turns.take(analysis, priority=priority))
        await turn.may_open(facts)
        stack.push_async_exit(own.pop_all())
        return turn


class Caller:
    """Calls for a slide that last until they are ended."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._ends: list[asyncio.Event] = []
        self.begun = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, calls: int) -> None:
        self.tasks += [asyncio.create_task(self._call()) for _ in range(calls)]
        await settled()

    async def _call(self) -> None:
        async with self._turn.call():
            self.begun += 1
            self._ends.append(asyncio.Event())
            await self._ends[-1].wait()

    async def end(self, calls: int) -> None:
        for event in [event for event in self._ends if not event.is_set()][:calls]:
            event.set()
        await settled()


async def test_the_oldest_slide_calls_as_often_as_it_wants_and_the_next_one_only_while_the_model_has_little_to_do() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        older, younger = Caller(await opened(turns, stack)), Caller(await opened(turns, stack))
        await older.ask(4)
        await younger.ask(4)
        assert (4, 0) == (older.begun, younger.begun)
        await older.end(2)
        assert 0 == younger.begun
        await older.end(1)
        assert 1 == younger.begun
        await older.ask(1)
        await younger.end(1)
        assert (5, 1) == (older.begun, younger.begun)
        await older.end(2)
        await younger.end(3)
        await younger.end(3)


async def test_a_model_of_more_instances_has_one_call_more_than_they_are_while_the_first_slide_makes_none() -> None:
    async with AsyncExitStack() as stack:
        turns, facts = Turns(), model(instances=4)
        # It is copied or surveyed.
        await opened(turns, stack, priority=1, facts=facts)
        other = Caller(await opened(turns, stack, facts=facts))
        await other.ask(6)
        assert 5 == other.begun
        await other.end(1)
        assert 6 == other.begun
        await other.end(5)


async def test_the_next_slide_goes_on_at_once_when_the_oldest_has_its_tiles_done() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        first = await opened(turns, stack)
        younger = Caller(await opened(turns, stack))
        older = Caller(first)
        await older.ask(2)
        await younger.ask(4)
        assert 0 == younger.begun
        first.end()
        await settled()
        assert 4 == younger.begun
        await older.end(2)
        await younger.end(4)


async def test_a_third_slide_is_opened_when_one_of_two_has_its_tiles_done() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        first = await opened(turns, stack)
        await opened(turns, stack)
        third = opening(turns, stack)
        assert not await has_come(third)
        first.end()
        assert await has_come(third)


async def test_an_urgent_slide_waits_for_no_other_and_goes_first() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        usual = Caller(await opened(turns, stack))
        await opened(turns, stack)
        urgent = Caller(await opened(turns, stack, priority=1))
        await usual.ask(3)
        await urgent.ask(3)
        assert (2, 3) == (usual.begun, urgent.begun)
        await usual.end(2)
        await urgent.end(2)
        assert 3 == usual.begun
        await usual.end(1)
        await urgent.end(1)


@pytest.mark.parametrize("usual", [0, 2, 4])
async def test_priorities_are_those_of_the_model(usual: int) -> None:
    async with AsyncExitStack() as stack:
        turns, facts = Turns(), model(batching=Batching(levels=3, default_level=2))
        idle = Caller(await opened(turns, stack, priority=3, facts=facts))
        first = Caller(await opened(turns, stack, priority=usual, facts=facts))
        await idle.ask(3)
        await first.ask(3)
        assert (2, 3) == (idle.begun, first.begun)
        await first.end(3)
        await idle.end(3)
        await idle.end(3)


async def test_slides_of_other_analyses_wait_for_nothing() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        await opened(turns, stack)
        await opened(turns, stack)
        assert await has_come(opening(turns, stack, analysis="other"))


async def test_a_slide_that_is_given_up_while_it_waits_keeps_no_place() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        first = await opened(turns, stack)
        await opened(turns, stack)
        given_up, patient = opening(turns, stack), opening(turns, stack)
        await settled()
        given_up.cancel()
        assert not await has_come(patient)
        first.end()
        assert await has_come(patient)


async def test_a_slide_that_fails_leaves_its_place_and_its_calls_to_others() -> None:
    async with AsyncExitStack() as stack:
        turns, failing = Turns(), AsyncExitStack()
        older = Caller(await opened(turns, failing))
        younger = Caller(await opened(turns, stack))
        third = opening(turns, stack)
        await older.ask(3)
        await younger.ask(2)
        assert (0, False) == (younger.begun, await has_come(third))
        for task in older.tasks:
            task.cancel()
        await failing.aclose()
        await settled()
        assert (2, True) == (younger.begun, await has_come(third))
        await younger.end(2)


async def test_a_call_that_is_given_up_while_it_waits_lets_others_go() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        later, usual = Caller(await opened(turns, stack, priority=9)), Caller(await opened(turns, stack))
        urgent = Caller(await opened(turns, stack, priority=1))
        await urgent.ask(2)
        await usual.ask(1)
        await later.ask(1)
        usual.tasks[0].cancel()
        await urgent.end(1)
        assert (0, 1) == (usual.begun, later.begun)
        await urgent.end(1)
        await later.end(1)


async def test_an_open_slide_without_calls_for_a_minute_keeps_no_other_from_being_opened() -> None:
    now = 0.0
    turns = Turns(clock=lambda: now)
    async with AsyncExitStack() as stack:
        await opened(turns, stack)
        second = await opened(turns, stack)
        waiting = opening(turns, stack)
        assert not await has_come(waiting)
        now = 61.0
        async with second.call():
            pass
        assert await has_come(waiting)


async def test_slides_that_wait_long_for_their_turn_keep_it() -> None:
    now = 0.0
    turns = Turns(clock=lambda: now)
    async with AsyncExitStack() as stack:
        first = await opened(turns, stack)
        older, younger = Caller(first), Caller(await opened(turns, stack))
        await older.ask(2)
        await younger.ask(1)
        third, fourth = opening(turns, stack), opening(turns, stack)
        await settled()
        now = 600.0
        await older.end(1)
        await younger.end(1)
        assert (False, False) == (await has_come(third), await has_come(fourth))
        first.end()
        assert (True, False) == (await has_come(third), await has_come(fourth))
        await older.end(1)
        fourth.cancel()


async def test_slides_that_are_being_written_are_bounded_too() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        slides = [AsyncExitStack() for _ in range(6)]
        for own in slides:
            stack.push_async_exit(own)
        opening_all = [opening(turns, own) for own in slides]
        for own, waiting, after in zip(slides, opening_all, opening_all[3:], strict=False):
            await settled()
            for task in opening_all:
                if task.done():
                    task.result().end()
            assert not await has_come(after)
            assert waiting.done()
            await own.aclose()
            assert await has_come(after)
        await asyncio.gather(*opening_all)


async def test_a_place_that_is_given_back_goes_to_the_one_who_asked_first() -> None:
    async with AsyncExitStack() as stack:
        turns, delivered = Turns(), AsyncExitStack()
        for own in (delivered, stack, stack):
            (await opened(turns, own)).end()
        fourth, fifth = opening(turns, stack), opening(turns, stack)
        assert (False, False) == (await has_come(fourth), await has_come(fifth))
        await delivered.aclose()
        assert (True, False) == (await has_come(fourth), await has_come(fifth))
        fifth.cancel()


async def test_no_more_than_four_slides_are_open_whatever_their_priority() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        each_more_urgent = []
        for priority in range(9, 1, -1):
            each_more_urgent.append(opening(turns, stack, priority=priority))
            await settled()
        assert [True] * 4 + [False] * 4 == [task.done() for task in each_more_urgent]
        for task in each_more_urgent[4:]:
            task.cancel()


async def test_an_urgent_slide_does_not_wait_for_others_to_be_written() -> None:
    async with AsyncExitStack() as stack:
        turns = Turns()
        for _ in range(3):
            (await opened(turns, stack)).end()
        usual = opening(turns, stack)
        await settled()
        urgent = opening(turns, stack, priority=1)
        assert (False, True) == (await has_come(usual), await has_come(urgent))
        usual.cancel()


async def test_no_more_than_four_slides_are_open_however_long_they_have_stalled() -> None:
    now = 0.0
    turns = Turns(clock=lambda: now)
    async with AsyncExitStack() as stack:
        waiting = [opening(turns, stack) for _ in range(7)]
        for minute, are_open in enumerate((2, 4, 4, 4)):
            now = minute * 61.0
            # Those who wait look again when there is a change, and now and then.
            async with (await waiting[1]).call():
                pass
            await settled()
            assert are_open >= sum(task.done() for task in waiting)
        assert 4 == sum(task.done() for task in waiting)
        for task in waiting[4:]:
            task.cancel()


async def test_a_slide_that_is_read_has_not_stalled() -> None:
    now = 0.0
    turns = Turns(clock=lambda: now)
    async with AsyncExitStack() as stack:
        slides = [await opened(turns, stack) for _ in range(2)]
        third = opening(turns, stack)
        for minute in range(1, 5):
            now = minute * 40.0
            for slide in slides:
                slide.moved()
            assert not await has_come(third)
        now = 500.0
        async with slides[0].call():
            pass
        assert await has_come(third)
