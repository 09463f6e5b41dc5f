"""Which way a model runs while much waits, by the runs that it is told of."""

from __future__ import annotations

import pytest

from inference_server.scheduler.dispatch.pace import Pace


def run(pace: Pace, *, gain: float, runs: int) -> list[bool]:
    """Runs of a model that is `gain` times as fast with two at a time; whether each was one of two."""
    pairs = []
    before = pace.pairs
    for _ in range(runs):
        beside = pace.pairs
        pairs.append(beside)
        pace.ran(1000, 2 / gain if beside else 1.0, began_beside=before, ended_beside=beside)
        before = beside
    return pairs


def test_each_way_is_tried_before_one_is_chosen() -> None:
    assert {False, True} == set(run(Pace(), gain=1.0, runs=20))


@pytest.mark.parametrize(("gain", "pairs"), [(0.5, False), (0.95, False), (1.0, False), (1.06, True), (1.5, True)])
def test_the_faster_way_is_kept_but_for_rare_trials(gain: float, pairs: bool) -> None:
    pace = Pace()
    run(pace, gain=gain, runs=300)
    found = run(pace, gain=gain, runs=1000)
    assert found.count(pairs) > 960
    assert {False, True} == set(found)


@pytest.mark.parametrize(("before", "after"), [(0.6, 1.2), (1.2, 0.6)])
def test_a_model_that_changes_is_found_out(before: float, after: float) -> None:
    pace = Pace()
    run(pace, gain=before, runs=1000)
    run(pace, gain=after, runs=300)  # until the next trial
    assert run(pace, gain=after, runs=1000).count(after > 1) > 960


def test_wider_rows_are_no_slower_ones() -> None:
    pace = Pace()
    for number in range(300):
        beside, width = pace.pairs, 1 + number % 7
        pace.ran(1000 * width, width * (2.2 if beside else 1.0), began_beside=beside, ended_beside=beside)
    assert not pace.pairs


def test_where_none_runs_from_begin_to_end_beside_another_one_at_a_time_is_kept() -> None:
    pace = Pace()
    for _ in range(300):
        pace.ran(1000, 0.1 if pace.pairs else 1.0, began_beside=pace.pairs, ended_beside=False)
    assert not pace.pairs
