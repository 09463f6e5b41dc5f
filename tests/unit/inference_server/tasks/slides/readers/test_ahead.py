"""Stored tiles that are fetched along with their neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from inference_server.errors import Unavailable
from inference_server.tasks.slides.readers.ahead import ReadAhead
from inference_server.tasks.slides.values import Position


@dataclass(kw_only=True)
class Store:
    """A store, and what was fetched from it."""

    fetched: list[list[Position]] = field(default_factory=list)
    # Each waits until this is set.
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    tile_bytes: int = 100

    @property
    def ahead(self) -> ReadAhead:
        return ReadAhead(self.fetch, lambda _level, _place: self.tile_bytes)

    async def fetch(self, level: int, places: Sequence[Position]) -> list[str]:
        if not places:
            return []
        self.fetched.append(list(places))
        await self.answers.wait()
        if self.fails:
            raise Unavailable("gone")
        return [f"{level}: {place}" for place in places]


@pytest.fixture
def store() -> Store:
    store = Store()
    store.answers.set()
    return store


async def test_a_tile_that_came_along_is_not_fetched_again(store: Store) -> None:
    ahead = store.ahead
    assert ["1: (0, 0)"] == await ahead.read(1, [(0, 0)], soon=[(1, 0), (2, 0)])
    assert ["1: (2, 0)", "1: (1, 0)"] == await ahead.read(1, [(2, 0), (1, 0)], soon=[(3, 0)])
    assert [[(0, 0), (1, 0), (2, 0)]] == store.fetched


async def test_a_tile_of_another_level_is_another_one(store: Store) -> None:
    ahead = store.ahead
    await ahead.read(1, [(0, 0)], soon=[(1, 0)])
    assert ["2: (1, 0)"] == await ahead.read(2, [(1, 0)], soon=[])


async def test_a_tile_that_is_read_again_is_fetched_again(store: Store) -> None:
    ahead = store.ahead
    await ahead.read(1, [(0, 0)], soon=[(1, 0)])
    for _ in range(2):
        assert ["1: (1, 0)"] == await ahead.read(1, [(1, 0)], soon=[])
    assert [[(0, 0), (1, 0)], [(1, 0)]] == store.fetched


async def test_one_that_is_on_its_way_is_waited_for(store: Store) -> None:
    ahead = store.ahead
    store.answers.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ahead.read(1, [(0, 0)], soon=[(1, 0)]))
        await asyncio.sleep(0)
        second = group.create_task(ahead.read(1, [(1, 0)], soon=[]))
        await asyncio.sleep(0)
        assert not second.done()
        store.answers.set()
    assert (["1: (0, 0)"], ["1: (1, 0)"]) == (first.result(), second.result())
    assert [[(0, 0), (1, 0)]] == store.fetched


async def test_one_that_is_held_does_not_come_along_again(store: Store) -> None:
    ahead = store.ahead
    await ahead.read(1, [(0, 0)], soon=[(2, 0)])
    await ahead.read(1, [(1, 0)], soon=[(2, 0), (3, 0)])
    assert [[(0, 0), (2, 0)], [(1, 0), (3, 0)]] == store.fetched


async def test_who_waits_no_longer_harms_no_one_else(store: Store) -> None:
    ahead = store.ahead
    store.answers.clear()
    first = asyncio.create_task(ahead.read(1, [(0, 0)], soon=[(1, 0)]))
    await asyncio.sleep(0)
    second = asyncio.create_task(ahead.read(1, [(1, 0)], soon=[]))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    store.answers.set()
    assert ["1: (0, 0)"] == await first


async def test_nobody_waits_for_what_has_failed(store: Store) -> None:
    ahead = store.ahead
    store.answers.clear()
    store.fails = True
    first = asyncio.create_task(ahead.read(1, [(0, 0)], soon=[(1, 0)]))
    await asyncio.sleep(0)
    second = asyncio.create_task(ahead.read(1, [(1, 0)], soon=[]))
    await asyncio.sleep(0)
    store.answers.set()
    done, _ = await asyncio.wait([first, second], timeout=5)
    assert {first, second} == done
    assert isinstance(first.exception(), Unavailable)


async def test_nothing_comes_along_in_rows_of_which_all_is_there(store: Store) -> None:
    ahead = store.ahead
    await ahead.read(1, [(0, 0)], soon=[(1, 0)])
    await ahead.read(1, [(1, 0), (1, 1)], soon=[(2, 0), (2, 1)])
    assert [(1, 1), (2, 1)] == store.fetched[-1]


async def test_no_more_is_held_than_there_is_room_for(store: Store) -> None:
    store.tile_bytes = 6 * 1024 * 1024
    ahead = store.ahead
    await ahead.read(1, [(0, 0)], soon=[(column, 0) for column in range(1, 9)])
    assert [[(0, 0), (1, 0), (2, 0)]] == store.fetched
    await ahead.read(1, [(1, 0)], soon=[])
    await ahead.read(1, [(0, 1)], soon=[(1, 1), (2, 1)])
    assert [(0, 1), (1, 1)] == store.fetched[-1]


async def test_what_nobody_asks_for_is_let_go_of_in_the_end(store: Store) -> None:
    store.tile_bytes = 1024 * 1024
    ahead = store.ahead
    await ahead.read(1, [(0, 0)], soon=[(column, 0) for column in range(1, 16)])
    for row in range(1, 70):
        await ahead.read(1, [(0, row)], soon=[(1, row)])
        await ahead.read(1, [(1, row)], soon=[])
    await ahead.read(1, [(0, 70)], soon=[(column, 70) for column in range(1, 20)])
    # All the room there is.
    assert 1 + 16 == len(store.fetched[-1])


async def test_a_failure_is_told_and_leaves_nothing_that_is_waited_for_in_vain(store: Store) -> None:
    ahead = store.ahead
    store.fails = True
    with pytest.raises(Unavailable, match="gone"):
        await ahead.read(1, [(0, 0)], soon=[(1, 0)])
    store.fails = False
    assert ["1: (1, 0)"] == await asyncio.wait_for(ahead.read(1, [(1, 0)], soon=[]), 5)


async def test_tiles_that_were_never_scanned_do_not_come_along(store: Store) -> None:
    store.tile_bytes = 0
    await store.ahead.read(1, [(0, 0)], soon=[(1, 0)])
    assert [[(0, 0)]] == store.fetched
