"""What the bridge adds to a job: from its message on the queue to its result where it goes, with a system that does nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import psycopg
import redis

from benchmarks.support.jobs.queues import Place, message

_DEADLINE_SECONDS = 30.0
# Between two jobs: long enough that each finds an idle bridge, and never in step with its polls.
_GAP_SECONDS = (0.05, 0.25)


def through_redis(place: Place, *, warm_up: int, jobs: int) -> Sequence[float]:
    """Milliseconds from each push to the list until its result was published to us."""
    client = redis.Redis.from_url(place.redis.url)
    with client.pubsub(ignore_subscribe_messages=True) as results:
        results.subscribe("results")

        def one(key: str) -> float:
            client.hset("jobs:bodies", key, message(key))
            started = time.perf_counter()
            client.rpush("jobs", key)
            until = time.monotonic() + _DEADLINE_SECONDS
            while time.monotonic() < until:
                if results.get_message(timeout=1.0):
                    return 1000 * (time.perf_counter() - started)
            raise TimeoutError(f"no result of {key} in {_DEADLINE_SECONDS:g} s")

        return _one_by_one(one, warm_up=warm_up, jobs=jobs)


def through_postgres(place: Place, *, warm_up: int, jobs: int) -> Sequence[float]:
    """Milliseconds from each message's commit to its result's, by the server's clock."""
    with psycopg.connect(place.database, autocommit=True) as connection:

        def one(key: str) -> float:
            values = (key, message(key))
            [sent] = _only(
                connection,
                "INSERT INTO lamina.local_messages (queue, message_id, body, attributes, sent_at, visible_at) "
                "SELECT 'jobs', %s, %s, '{}', now, now FROM lamina.clock RETURNING sent_at",
                values,
            )
            until = time.monotonic() + _DEADLINE_SECONDS
            while time.monotonic() < until:
                query = "SELECT sent_at FROM lamina.local_messages WHERE queue = 'results' AND attributes::json->>'job_key' = %s"
                if found := connection.execute(query, (key,)).fetchone():
                    return 1000 * (found[0] - sent)
                time.sleep(0.01)
            raise TimeoutError(f"no result of {key} in {_DEADLINE_SECONDS:g} s")

        return _one_by_one(one, warm_up=warm_up, jobs=jobs)


def _one_by_one(one: Callable[[str], float], *, warm_up: int, jobs: int) -> Sequence[float]:
    gaps = random.Random(7)
    taken = []
    for number in range(warm_up + jobs):
        time.sleep(gaps.uniform(*_GAP_SECONDS))
        taken.append(one(f"latency-{number}"))
    return taken[warm_up:]


def _only(connection: psycopg.Connection, statement: str, values: tuple[object, ...]) -> tuple[float, ...]:
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    return row
