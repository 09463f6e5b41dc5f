"""Bounds on requests and bytes, and when to come back."""

from __future__ import annotations

import pytest

from inference_server.errors import InvalidTensor, Overloaded
from inference_server.scheduler.dispatch.admission import Admission, Pace, QueueLimits


def test_the_retry_hint_follows_the_recent_pace() -> None:
    admission = Admission(QueueLimits(max_requests=1))
    for second in range(200):
        admission.enter(1, second / 10)
        admission.leave(1, second / 10, answered=True)
    admission.enter(1, 20.0)
    with pytest.raises(Overloaded, match=r"try again in 0\.1\d s") as error:
        admission.enter(1, 20.0)
    assert error.value.retry_after == pytest.approx(0.116, abs=0.02)


def test_without_a_pace_the_hint_is_a_second() -> None:
    assert 1.0 == Pace().seconds_for(100, 5.0)


def test_the_hint_stays_within_bounds() -> None:
    pace = Pace()
    pace.count(1, 0.0)
    assert 30.0 == pace.seconds_for(100_000, 0.1)
    pace.count(100_000, 0.2)
    assert 0.05 == pace.seconds_for(1, 0.2)


def test_bytes_are_bounded_and_free_again() -> None:
    admission = Admission(QueueLimits(max_bytes=100))
    admission.enter(60, 0.0)
    with pytest.raises(Overloaded, match="60 bytes of tensors are waiting or running and 50 more"):
        admission.enter(50, 0.0)
    admission.leave(60, 0.0, answered=False)
    admission.enter(50, 0.0)
    assert (1, 50) == (admission.requests, admission.bytes)


def test_what_never_fits_is_invalid_rather_than_to_be_tried_again() -> None:
    with pytest.raises(InvalidTensor, match="101 bytes; at most 100"):
        Admission(QueueLimits(max_bytes=100)).enter(101, 0.0)
