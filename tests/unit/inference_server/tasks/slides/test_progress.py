"""What is told of an analysis that works, waits and goes on."""

from __future__ import annotations

from dataclasses import dataclass

from inference_server.tasks.slides.progress import ProgressMeter


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_slide_that_waits_before_its_first_call_is_told_by_its_own_speed() -> None:
    clock = Clock()
    meter = ProgressMeter(total=100, clock=clock)
    clock.seconds += 600
    with meter.working():
        # It reads ahead, waits for its turn, and is computed.
        clock.seconds += 1
        with meter.waiting():
            clock.seconds += 300
        clock.seconds += 4
    told = meter.advance(20)
    assert told is not None
    assert (20, 100, 4.0, 20.0) == (told.tiles_done, told.tiles_total, told.tiles_per_second, told.seconds_left)


def test_while_one_worker_waits_and_another_works_time_passes() -> None:
    clock = Clock()
    meter = ProgressMeter(total=30, done=10, clock=clock)
    with meter.working(), meter.working():
        with meter.waiting():
            clock.seconds += 2
            with meter.waiting():
                clock.seconds += 50
        clock.seconds += 3
    told = meter.advance(10)
    assert told is not None
    assert (2.0, 5.0) == (told.tiles_per_second, told.seconds_left)


def test_nothing_is_told_of_the_speed_before_there_is_any() -> None:
    told = ProgressMeter(total=30, done=10, clock=Clock()).now()
    assert (10, 0.0, None) == (told.tiles_done, told.tiles_per_second, told.seconds_left)


def test_it_is_told_every_half_second_and_at_the_end() -> None:
    clock = Clock()
    meter = ProgressMeter(total=3, clock=clock)
    with meter.working():
        clock.seconds += 0.3
        assert meter.advance(1) is None
        clock.seconds += 0.3
        assert meter.advance(1) is not None
        assert meter.advance(1) is not None
