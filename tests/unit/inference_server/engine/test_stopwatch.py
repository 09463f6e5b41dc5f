"""Times without what other work on the machine adds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from inference_server.engine.selection import stopwatch
from inference_server.engine.selection.stopwatch import (
    ThreadTimes,
    longest_wait,
    quiet_seconds,
    thread_times,
    wall_seconds,
    without_waiting,
)


@pytest.mark.parametrize(
    ("why", "seconds", "waited", "used", "expected"),
    [
        ("nothing else ran", 0.05, 0.0, 0.1, 0.05),
        ("the one thread that computed waited", 0.15, 0.1, 0.05, 0.05),
        ("one of two waited, and the other for it", 0.15, 0.1, 0.1, 0.05),
        ("threads that had nothing to do with it waited too", 0.15, 9.0, 0.1, 0.05),
        ("it slept", 0.05, 0.0, 0.0, 0.05),
        ("the clocks of threads are finer than their processor time", 0.01, 0.0, 0.04, 0.01),
    ],
)
def test_what_threads_waited_is_taken_off_down_to_their_processor_time(
    why: str, seconds: float, waited: float, used: float, expected: float
) -> None:
    assert expected == pytest.approx(without_waiting(seconds, waited=waited, used=used, cores=2)), why


def test_threads_wait_side_by_side_so_that_the_longest_wait_counts() -> None:
    before = {"main": ThreadTimes(ran=5, waited=3_000_000), "idle": ThreadTimes(ran=7, waited=0)}
    after = {
        "main": ThreadTimes(ran=6, waited=103_000_000),
        "new": ThreadTimes(ran=1, waited=80_000_000),
        # It had nothing to do with the work.
        "idle": ThreadTimes(ran=7, waited=900_000_000),
    }
    assert 0.1 == pytest.approx(longest_wait(before, after))


def test_of_many_threads_that_wait_at_once_the_better_scaling_engine_is_not_overrated() -> None:
    # 10 ms alone on the machine, of three threads on 16 cores; each waited for 1 ms.
    assert 0.01 == pytest.approx(without_waiting(0.011, waited=0.001, used=0.03, cores=16))


def test_times_are_read_of_each_thread_that_is_still_there(tmp_path: Path) -> None:
    for name, content in {"1": "7000 1500000000 3\n", "2": "12 500000000 1\n", "ended": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(content)
    assert {"1": ThreadTimes(ran=7000, waited=1_500_000_000), "2": ThreadTimes(ran=12, waited=500_000_000)} == thread_times(tasks=tmp_path)


def test_a_system_that_tells_nothing_leaves_the_time_as_it_is(tmp_path: Path) -> None:
    assert {} == thread_times(tasks=tmp_path / "none")
    assert 0.0 == longest_wait({}, {})


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell what threads wait")
def test_this_system_tells_what_threads_ran() -> None:
    assert any(times.ran > 0 for times in thread_times().values())


def test_what_was_waited_meanwhile_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([{"main": ThreadTimes(ran=0, waited=0)}, {"main": ThreadTimes(ran=1, waited=20_000_000)}])
    monkeypatch.setattr(stopwatch, "thread_times", lambda: next(readings))
    begun = time.perf_counter()

    seconds = quiet_seconds(lambda: time.sleep(0.05))

    assert 0.03 <= seconds <= time.perf_counter() - begun - 0.02


def test_time_on_the_wall_is_what_passed() -> None:
    begun = time.perf_counter()
    assert 0.05 <= wall_seconds(lambda: time.sleep(0.05)) <= time.perf_counter() - begun
