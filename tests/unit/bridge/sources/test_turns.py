from __future__ import annotations

from bridge.sources.turns import Turns


def test_the_urgent_go_first_until_they_have_had_their_row() -> None:
    turns = Turns(["a", "b", "c"], in_a_row=2)
    seen = []
    for _ in range(10):
        first = turns.order()[0]
        seen.append(first)
        turns.served(first, 1)

    assert list("aabaabaaca") == seen


def test_a_queue_that_has_had_its_row_is_still_looked_at_last() -> None:
    turns = Turns(["a", "b"], in_a_row=1)
    turns.served("a", 5)

    assert ["b", "a"] == turns.order()
    turns.served("b", 1)
    assert ["a", "b"] == turns.order()
