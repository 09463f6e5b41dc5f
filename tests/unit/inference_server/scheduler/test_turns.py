"""Whose turn it is, by weight."""

from __future__ import annotations

import math
from collections import Counter

from inference_server.scheduler.dispatch.turns import Turns


def serve(turns: Turns[str], times: int, *, cost: float = 1.0) -> str:
    """Give the first one so much, as often as that; tells who it was."""
    served = ""
    for _ in range(times):
        served += turns.first()
        turns.charge(served[-1], cost)
    return served


def turns_of(weights: dict[str, float]) -> Turns[str]:
    turns = Turns[str](lambda key: weights.get(key, 1.0))
    for key in weights:
        turns.enter(key)
    return turns


def test_equals_take_turns_in_the_order_in_which_they_came() -> None:
    assert "abcabcabc" == serve(turns_of({"a": 1.0, "b": 1.0, "c": 1.0}), 9)


def test_each_gets_its_share_by_weight() -> None:
    assert Counter(a=600, b=300, c=100) == Counter(serve(turns_of({"a": 6.0, "b": 3.0, "c": 1.0}), 1000))


def test_what_counts_is_the_cost_and_not_the_number() -> None:
    turns = turns_of({"large": 1.0, "small": 1.0})
    given: Counter[str] = Counter()
    for _ in range(900):
        key = turns.first()
        turns.charge(key, 8.0 if key == "large" else 1.0)
        given[key] += 8 if key == "large" else 1
    assert abs(given["large"] - given["small"]) <= 8


def test_who_comes_anew_goes_next_however_long_the_others_waited() -> None:
    turns = turns_of({"a": 1.0})
    serve(turns, 50_000)
    turns.enter("b")
    assert "bab" == serve(turns, 3)


def test_who_was_away_has_not_saved_up_turns() -> None:
    turns = turns_of({"a": 1.0, "b": 1.0})
    serve(turns, 2)
    turns.leave("b")
    serve(turns, 1000)
    turns.enter("b")
    assert Counter(a=50, b=50) == Counter(serve(turns, 100))


def test_leaving_and_coming_again_at_once_gains_nothing() -> None:
    turns = turns_of({"heavy": 3.0, "light": 1.0})
    given = ""
    for _ in range(400):
        key = turns.first()
        turns.charge(key, 1.0)
        turns.leave(key)
        turns.enter(key)
        given += key[0]
    assert Counter(h=300, l=100) == Counter(given)


def test_infinite_weight_goes_before_all_by_rank_and_none_after_all() -> None:
    turns = Turns[int](lambda level: 0.0 if level > 3 else math.inf, rank=int)
    for level in (4, 3, 1):
        turns.enter(level)
    turns.charge(turns.first(), 5.0)
    assert [1, 3, 4] == list(turns.in_order())
    assert 1 == turns.first()


def test_callers_that_come_and_cancel_leave_nothing_behind() -> None:
    turns = turns_of({"a": 1.0})
    for number in range(10_000):
        turns.enter(f"client {number}")
        turns.leave(f"client {number}")
    assert "a" == turns.first()
    assert len(turns._heap) < 200
