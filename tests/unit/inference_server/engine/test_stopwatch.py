"""Times without what other work on the machine adds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from inference_server.engine.stopwatch import quiet_seconds, waited_seconds, without_waiting


@pytest.mark.parametrize(
    ("why", "seconds", "waited", "used", "expected"),
    [
        ("nothing else ran", 0.05, 0.0, 0.1, 0.05),
        ("the one thread that computed waited", 0.15, 0.1, 0.05, 0.05),
        ("one of two waited, and the other for it", 0.15, 0.1, 0.1, 0.05),
        ("both waited at once, as long as each other", 0.15, 0.2, 0.1, 0.05),
        ("threads that had nothing to do with it waited too", 0.15, 9.0, 0.1, 0.05),
        ("it slept", 0.05, 0.0, 0.0, 0.05),
        ("the clocks of threads are finer than their processor time", 0.01, 0.0, 0.04, 0.01),
    ],
)
def test_what_threads_waited_is_taken_off_down_to_their_processor_time(
    why: str, seconds: float, waited: float, used: float, expected: float
) -> None:
    assert expected == pytest.approx(without_waiting(seconds, waited=waited, used=used, cores=2)), why


def test_the_waits_of_all_threads_are_summed_up(tmp_path: Path) -> None:
    for number, content in enumerate(("7000 1500000000 3\n", "12 500000000 1\n", "")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "schedstat").write_text(content)
    assert 2.0 == waited_seconds(tasks=tmp_path)


def test_a_system_that_tells_nothing_leaves_the_time_as_it_is(tmp_path: Path) -> None:
    assert 0.0 == waited_seconds(tasks=tmp_path / "none")


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell what threads wait")
def test_this_system_tells_what_threads_wait() -> None:
    assert waited_seconds() > 0


def test_work_is_done_and_takes_no_longer_than_it_took() -> None:
    done: list[str] = []
    begun = time.perf_counter()
    seconds = quiet_seconds(lambda: done.append("once"))
    assert (["once"], True) == (done, 0 <= seconds <= time.perf_counter() - begun)
