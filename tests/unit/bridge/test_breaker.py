"""When a service is left alone."""

from __future__ import annotations

import pytest

from bridge.breaker import Breaker
from bridge.errors import OverloadError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_lets_one_trial_through_and_closes_when_that_goes_well() -> None:
    clock = Clock()
    breaker = Breaker(name="the service", failures=2, seconds=10, clock=clock)
    breaker.failed()
    breaker.enter()
    breaker.failed()

    with pytest.raises(OverloadError) as refused:
        breaker.enter()
    assert refused.value.retry_after == 10

    clock.now = 10
    breaker.enter()
    with pytest.raises(OverloadError):
        breaker.enter()
    breaker.succeeded()
    breaker.enter()
    breaker.enter()


def test_a_failed_trial_keeps_it_open() -> None:
    clock = Clock()
    breaker = Breaker(name="the service", failures=1, seconds=10, clock=clock)
    breaker.failed()
    clock.now = 10
    breaker.enter()
    breaker.failed()
    clock.now = 19.9

    with pytest.raises(OverloadError):
        breaker.enter()


def test_failures_with_a_success_between_them_do_not_add_up() -> None:
    breaker = Breaker(name="the service", failures=2, seconds=10, clock=Clock())
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()

    breaker.enter()
