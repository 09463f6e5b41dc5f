"""Lists that lie one after another are told as if each were alone."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.labs.catalogue.lists import Lists


@pytest.mark.parametrize("asked", [[], [1], [0, 2], [2, 0, 2, 1], [1, 1]])
def test_the_lists_asked_for_come_one_after_another(asked: list[int]) -> None:
    lists = [[5, 3], [], [7, 1, 2]]
    values, lengths = Lists.of_each(lists).of(np.array(asked, np.int64))
    assert [value for number in asked for value in lists[number]] == values.tolist()
    assert [len(lists[number]) for number in asked] == lengths.tolist()


def test_the_places_of_each_key_rise() -> None:
    values, lengths = Lists.by_key(np.array([2, 0, 2, 2, 0]), 4).of(np.arange(4))
    assert ([1, 4, 0, 2, 3], [2, 0, 3, 0]) == (values.tolist(), lengths.tolist())
