from __future__ import annotations

import asyncio

import pytest

from inference_server.errors import Unavailable
from inference_server.service.lifecycle import BytesInFlight, Lifecycle, Phase


async def test_the_phases_go_forward_only() -> None:
    lifecycle = Lifecycle()
    lifecycle.advance(Phase.LEAVING)
    lifecycle.advance(Phase.READY)
    assert (lifecycle.phase, lifecycle.ready) == (Phase.LEAVING, False)


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.READY, Phase.LEAVING])
async def test_calls_are_served_until_the_server_drains(phase: Phase) -> None:
    lifecycle = Lifecycle()
    lifecycle.advance(phase)
    lifecycle.enter()
    assert lifecycle.in_flight == 1
    lifecycle.leave()
    assert lifecycle.in_flight == 0


async def test_a_draining_server_refuses_new_calls_and_waits_for_old_ones() -> None:
    lifecycle = Lifecycle()
    lifecycle.enter()
    lifecycle.advance(Phase.DRAINING)
    with pytest.raises(Unavailable, match="takes no new calls"):
        lifecycle.enter()
    waiting = asyncio.create_task(lifecycle.idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    lifecycle.leave()
    await asyncio.wait_for(waiting, 60)


def test_bytes_are_held_up_to_the_bound_and_given_back() -> None:
    seen: list[int] = []
    held = BytesInFlight(most=10, observe=seen.append)
    assert [held.try_hold(6), held.try_hold(6), held.try_hold(4)] == [True, False, True]
    held.release(6)
    assert (held.try_hold(6), seen) == (True, [6, 10, 4, 10])


def test_one_request_alone_is_admitted_whatever_its_size() -> None:
    assert BytesInFlight(most=10).try_hold(11)
