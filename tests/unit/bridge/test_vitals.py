from __future__ import annotations

import math

from bridge.vitals import Lease, Vitals


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_owes_a_sign_for_too_long_is_stuck_and_who_rests_is_not() -> None:
    clock = Clock()
    vitals = Vitals(patience_seconds=10, clock=clock)
    vitals.begin("loop", within=5)
    vitals.begin("relay")
    vitals.rest("relay")
    clock.now = 14
    assert {} == vitals.stuck()
    clock.now = 16
    assert {"loop": 11} == vitals.stuck()
    vitals.begin("loop")
    assert {} == vitals.stuck()


def test_the_margin_is_that_of_the_lease_that_ends_first() -> None:
    clock = Clock()
    vitals = Vitals(clock=clock)
    assert math.isnan(vitals.margin(Lease.LEDGER))
    vitals.leased(Lease.LEDGER, "a", seconds=10)
    vitals.leased(Lease.LEDGER, "b", seconds=30)
    vitals.leased(Lease.QUEUE, "c", seconds=1)
    clock.now = 4
    assert (6, -3) == (vitals.margin(Lease.LEDGER), vitals.margin(Lease.QUEUE))
    vitals.unleased(Lease.LEDGER, "a")
    assert 26 == vitals.margin(Lease.LEDGER)


def test_the_silence_is_that_of_the_one_that_owes_a_sign_the_longest() -> None:
    clock = Clock()
    vitals = Vitals(clock=clock)
    assert 0 == vitals.silence()
    vitals.begin("loop", within=5)
    vitals.begin("relay", within=20)
    clock.now = 4
    assert 0 == vitals.silence()
    clock.now = 25
    assert 20 == vitals.silence()
    vitals.rest("loop")
    assert 5 == vitals.silence()
