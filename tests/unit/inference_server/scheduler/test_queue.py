"""The order in which requests leave the queue."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import numpy as np
import pytest

from inference_server.models.values import Batching
from inference_server.scheduler.dispatch.batcher import Batcher
from inference_server.scheduler.dispatch.queue import WaitingLine
from inference_server.scheduler.dispatch.work import Work

_arrivals = itertools.count(1)


@pytest.fixture
def line() -> WaitingLine:
    return WaitingLine()


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    yield loop  # type: ignore[misc]
    loop.close()


def work(loop: asyncio.AbstractEventLoop, *, level: int = 5, client: str = "", bucket: str = "a", rows: int = 1) -> Work:
    return Work(
        inputs={"x": np.zeros((rows, 1))},
        outputs=(),
        rows=rows,
        size=rows * 8,
        bucket=bucket,
        level=level,
        client=client,
        deadline=None,
        admitted=float(next(_arrivals)),
        future=loop.create_future(),
    )


def test_lower_levels_go_first_and_higher_ones_fill_the_batch(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    late, soon, now = (work(loop, level=level) for level in (9, 5, 1))
    for each in (late, soon, now):
        line.push(each)
    assert [now, soon] == line.take("a", 2)
    assert [late] == line.take("a", 2)
    assert 0 == len(line)


def test_clients_take_turns_within_a_level(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    for client in "aaaabbc":
        line.push(work(loop, client=client))
    assert list("abcabaa") == [each.client for _ in range(7) for each in line.take("a", 1)]


def test_the_bucket_of_the_one_whose_turn_it_is_comes_first(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    for bucket, level in (("wide", 5), ("narrow", 1), ("tall", 5)):
        line.push(work(loop, bucket=bucket, level=level))
    assert ["narrow", "wide", "tall"] == line.buckets()


@pytest.mark.parametrize(
    ("client", "halves"),
    [
        ("other", [[{"level": 1, "client": "urgent"}], [{"level": 10, "client": "patient"}]]),
        ("crowd", [[{"client": name} for name in "bcd"]] * 2),
    ],
    ids=["of the crowd's priority", "of the crowd's client"],
)
def test_another_shape_gets_its_turn_though_a_crowd_fills_the_batches_of_others(
    line: WaitingLine, loop: asyncio.AbstractEventLoop, client: str, halves: list[list[dict[str, Any]]]
) -> None:
    """Of those whose turn comes before the crowd's one half waits while the other is served, so that one of them always chooses."""
    batcher = Batcher(Batching(), max_batch_size=64)
    for _ in range(200):
        line.push(work(loop, client="crowd"))
    shapes: list[object] = []
    for number in range(40):
        for caller in halves[number % 2]:
            line.push(work(loop, **caller))
        if number == 20:
            line.push(work(loop, client=client, bucket="wide"))
        batch = batcher.form(line, 0.0).batch
        shapes.append(batch[0].bucket)
        for each in batch:
            if each.client == "crowd" and each.bucket != "wide":
                line.push(work(loop, client="crowd"))
    assert "wide" in shapes[20:24]


def test_a_client_of_many_shapes_gets_no_more_than_its_share(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    for number in range(200):
        line.push(work(loop, client="one shape"))
        line.push(work(loop, client="many shapes", bucket=f"width {number}"))
    taken = [each.client for _ in range(100) for each in line.take(line.buckets()[0], 1)]
    assert 50 == taken.count("one shape")


def test_another_shape_of_a_lower_level_waits_where_levels_are_strict(loop: asyncio.AbstractEventLoop) -> None:
    line = WaitingLine(Batching(strict=True))
    late = work(loop, level=2, bucket="wide")
    line.push(late)
    for _ in range(9):
        line.push(work(loop, level=2))
        line.push(work(loop, level=1))
        assert [1, 2] == [each.level for each in line.take(line.buckets()[0], 2)]
    assert late in line


def test_a_request_that_does_not_fit_is_passed_over_and_keeps_its_turn(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    first, large, small = work(loop, client="a", rows=2), work(loop, client="b", rows=3), work(loop, client="c", rows=2)
    for each in (first, large, small):
        line.push(each)
    assert [first, small] == line.take("a", 4)
    assert [large] == line.take("a", 4)


def test_removed_requests_are_gone_wherever_they_stood(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    works = [work(loop, client=client, bucket=bucket) for client in "ab" for bucket in "xy" for _ in range(3)]
    for each in works:
        line.push(each)
    for each in works[1::2]:
        line.remove(each)
    assert 6 == len(line) == line.waiting(5)
    assert {id(each) for each in works[::2]} == {id(each) for each in line}
    assert (4, 2) == (line.rows("x"), line.rows("y"))
    assert works[1] not in line
    for each in works[::2]:
        line.remove(each)
    assert [] == line.buckets()


def test_taking_from_a_long_queue_takes_time_by_the_batch_only(loop: asyncio.AbstractEventLoop) -> None:
    def seconds(length: int) -> float:
        line = WaitingLine()
        for number in range(length):
            line.push(work(loop, client=f"client {number % 3}"))
        start = time.process_time()
        for _ in range(100):
            assert 8 == len(line.take(line.buckets()[0], 8))
        return time.process_time() - start

    # Of a time that grew with the queue it would be 20 times.
    assert min(seconds(20_000) for _ in range(3)) < 8 * min(seconds(1_000) for _ in range(3))


def test_a_batch_is_formed_of_what_is_there(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(5):
        line.push(work(loop))
    batcher = Batcher(Batching(), max_batch_size=4)
    assert [4, 1, 0] == [len(batcher.form(line, time.monotonic()).batch) for _ in range(3)]


def test_a_model_without_batches_runs_one_request_at_a_time(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(2):
        line.push(work(loop))
    assert 1 == len(Batcher(Batching(), max_batch_size=0).form(line, 0.0).batch)


def test_callers_that_return_after_each_answer_are_served_in_even_halves(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    batcher = Batcher(Batching(), max_batch_size=64)
    for _ in range(59):
        line.push(work(loop))
    sizes = [5]
    for _ in range(8):
        sizes.append(len(batcher.form(line, time.monotonic(), returning=sizes[-1]).batch))
        for _ in range(sizes[-2]):
            line.push(work(loop))
    assert [32, 32, 32] == sizes[-3:]


def test_a_burst_goes_at_once(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    batcher = Batcher(Batching(), max_batch_size=8)
    for _ in range(5):
        line.push(work(loop))
    assert 5 == len(batcher.form(line, time.monotonic(), returning=1).batch)


def test_a_request_of_more_rows_than_half_goes_whole(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    batcher = Batcher(Batching(), max_batch_size=8)
    for _ in range(2):
        line.push(work(loop, rows=6))
        assert 1 == len(batcher.form(line, 0.0, returning=1).batch)


def test_the_largest_preferred_size_is_formed(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(7):
        line.push(work(loop))
    batcher = Batcher(Batching(preferred_sizes=(2, 4)), max_batch_size=8)
    assert [4, 2, 1] == [len(batcher.form(line, 0.0).batch) for _ in range(3)]


def test_a_request_larger_than_the_preferred_size_goes_all_the_same(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    line.push(work(loop, rows=6))
    batcher = Batcher(Batching(preferred_sizes=(4,), max_delay_seconds=9.0), max_batch_size=8)
    assert 1 == len(batcher.form(line, 0.0).batch)


def test_a_bucket_that_waits_does_not_hold_up_one_that_is_full(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    waiting = work(loop, bucket="few")
    line.push(waiting)
    for _ in range(4):
        line.push(work(loop, bucket="many"))
    batcher = Batcher(Batching(max_delay_seconds=2.0), max_batch_size=4)
    assert ["many"] * 4 == [each.bucket for each in batcher.form(line, waiting.admitted).batch]
    formed = batcher.form(line, waiting.admitted)
    assert ((), waiting.admitted + 2.0) == (formed.batch, formed.again_at)
    assert (waiting,) == batcher.form(line, waiting.admitted + 2.0).batch


def test_the_largest_request_is_known_wherever_it_stands(line: WaitingLine, loop: asyncio.AbstractEventLoop) -> None:
    assert 0 == line.most_rows()
    small, large, other = work(loop), work(loop, rows=12, level=9), work(loop, rows=9, bucket="b")
    for each in (small, large, other):
        line.push(each)
    assert 12 == line.most_rows()
    assert [small] == line.take("a", 1)
    assert 12 == line.most_rows()
    line.remove(large)
    assert 9 == line.most_rows()
