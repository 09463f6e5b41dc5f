from __future__ import annotations

import math

from bridge.sources.freshness import Freshness


def test_what_waits_is_no_older_than_what_came_last_nor_than_the_last_empty_poll() -> None:
    now = 1000.0
    freshness = Freshness(clock=lambda: now)
    assert math.isnan(freshness.oldest("jobs", waiting=3))
    freshness.came("jobs", 900.0)
    freshness.came("jobs", 880.0)
    assert (100.0, 0.0) == (freshness.oldest("jobs", waiting=3), freshness.oldest("jobs", waiting=0))
    freshness.nothing()
    now = 1007.0
    assert (7.0, 7.0) == (freshness.oldest("jobs", waiting=1), freshness.oldest("other", waiting=1))
