from __future__ import annotations

import random

import pytest

from bridge.worker.policy import Backoff, WorkPolicy
from bridge.worker.throttle import Throttle


@pytest.mark.parametrize(("failures", "bound"), [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (10_000, 60.0)])
def test_a_back_off_lies_anywhere_below_a_bound_that_doubles(failures: int, bound: float) -> None:
    backoff = Backoff(base=1.0, limit=60.0, random=random.Random(1))

    delays = [backoff.delay(failures) for _ in range(2000)]

    assert 0 <= min(delays) < 0.02 * bound
    assert 0.98 * bound < max(delays) <= bound


@pytest.mark.parametrize(("age", "asked", "least"), [(0, 15, 15), (100, 15, 15), (600, 15, 60), (600, 120, 120), (90_000, 15, 300)])
def test_a_job_that_is_held_up_comes_back_later_each_time_and_no_sooner_than_asked(age: float, asked: float, least: float) -> None:
    assert least <= WorkPolicy(backoff=Backoff(base=1.0)).held_up_seconds(asked, age) <= least + 1


async def test_an_overload_holds_receiving_back_for_as_long_as_the_server_asks() -> None:
    throttle = Throttle(limit=6000)

    delay = throttle.overloaded(500.0, Backoff(base=1.0))

    assert 500 <= delay <= 501
    assert delay - 100 <= throttle.pause() <= delay
    assert throttle.probing


async def test_pauses_grow_up_to_a_limit() -> None:
    throttle = Throttle(limit=10)

    backoff = Backoff(base=1.0, random=random.Random(1))

    delays = [throttle.overloaded(1.0, backoff) for _ in range(50)]

    assert max(delays) == 10


async def test_work_that_gets_past_the_server_ends_the_pause() -> None:
    throttle = Throttle(limit=60)
    throttle.overloaded(5.0, Backoff())

    throttle.relieved()

    assert (0, False) == (throttle.pause(), throttle.probing)


async def test_while_probing_the_next_job_waits_for_what_comes_of_the_last() -> None:
    throttle = Throttle(limit=700)
    throttle.began("first")
    assert throttle.pause() == 0

    throttle.overloaded(0.0, Backoff(base=0.001))
    throttle.began("second")

    assert 600 < throttle.pause() <= 700


async def test_while_probing_nothing_is_waited_for_of_a_job_that_came_to_no_server() -> None:
    throttle = Throttle(limit=700)
    throttle.overloaded(300.0, Backoff(base=0.001))
    throttle.began(probe := object())

    throttle.untried(probe)

    assert (True, True) == (throttle.probing, 200 < throttle.pause() <= 301), "what the server asked for is kept to"


async def test_a_job_from_before_that_came_to_no_server_lets_no_second_one_through() -> None:
    throttle = Throttle(limit=700)
    throttle.began(before := object())
    throttle.overloaded(0.0, Backoff(base=0.001))
    throttle.began(probe := object())

    throttle.untried(before)
    assert 600 < throttle.pause() <= 700

    throttle.untried(probe)
    assert throttle.pause() < 1


def test_a_job_over_which_the_server_is_lost_waits_longer_in_the_end_than_one_that_fails() -> None:
    policy = WorkPolicy(backoff=Backoff(base=1.0, limit=60.0))

    assert max(policy.suspect_backoff.delay(1) for _ in range(500)) <= 1.0
    assert 12 < max(policy.suspect_backoff.delay(3) for _ in range(500)) <= 16
    assert 200 < max(policy.suspect_backoff.delay(50) for _ in range(500)) <= 300


async def test_one_job_that_is_held_up_again_and_again_holds_receiving_back_for_nobody_while_others_get_past() -> None:
    throttle = Throttle(limit=6000)
    for _ in range(20):
        throttle.held_up(Backoff(base=1000.0))
        assert (0.0, False) == (throttle.pause(), throttle.probing)
        throttle.relieved()


async def test_where_all_jobs_are_held_up_receiving_slows_down_until_one_gets_past() -> None:
    throttle = Throttle(limit=6000)
    for _ in range(4):
        throttle.held_up(Backoff(base=1000.0))
    assert throttle.probing
    throttle.held_up(Backoff(base=1000.0))
    assert throttle.probing
    throttle.relieved()
    throttle.held_up(Backoff(base=1000.0))
    assert (0.0, False) == (throttle.pause(), throttle.probing)
