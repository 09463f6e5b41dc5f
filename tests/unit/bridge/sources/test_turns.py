from __future__ import annotations

from bridge.sources.turns import Turns, Urgencies


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


def test_priorities_take_turns_without_being_named_beforehand() -> None:
    urgencies = Urgencies(in_a_row=2)
    assert [] == urgencies.ranges()
    for _ in range(2):
        urgencies.served(0)
    assert [(1, None)] == urgencies.ranges(), "all but the one that was served so often"
    urgencies.served(5)
    assert [] == urgencies.ranges(), "it has waited for the other, and begins anew"
    urgencies.served(5)
    assert [(None, 4), (6, None)] == urgencies.ranges()
    urgencies.served(5)
    assert [] == urgencies.ranges(), "the others had nothing"
