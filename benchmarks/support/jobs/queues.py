"""Systems that take jobs from queues, each started as its users start it: the bridge, Celery and Dramatiq.

Every job is staged out of the workers' sight and then moved to them in one step, so that sending it costs the run nothing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import redis

from benchmarks.support.child_environment import child_environment
from benchmarks.support.jobs.noop_bridge import SYSTEM
from benchmarks.support.peers.environments import WORKERS, PeerMissing, environment
from bridge.envelopes import native
from bridge.job import Job
from tests.support.child_processes import wait_or_kill
from tests.support.servers.postgres import PostgresServer, migrated_template
from tests.support.servers.redis import RedisServer

_STAGE = 1  # the database of Redis that the workers do not look at
_STOP_SECONDS = 20
_DEADLINE_SECONDS = 120.0
_PEER_TABLE = """
CREATE TABLE peer_jobs (key text PRIMARY KEY, state text NOT NULL, result text, started_at timestamptz NOT NULL, finished_at timestamptz)
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one run takes place: servers that are there already, and a database of its own."""

    postgres: PostgresServer
    redis: RedisServer
    # URL of a database with nothing in it but what `JobSystem.prepare` made.
    database: str
    # Logs go there.
    folder: Path

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement in the database, and return its rows."""
        return self.postgres.run(statement, database=self.database.rpartition("/")[2])


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How the workers of a system are started."""

    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str]


class JobSystem(Protocol):
    """Something that takes jobs from a queue and records them."""

    @property
    def name(self) -> str:
        """For people."""

    def template(self, postgres: PostgresServer) -> str:
        """The database that its own are copied from."""

    def workers(self, place: Place, processes: int) -> Workers:
        """How so many processes are started. Raises `PeerMissing`."""

    def send(self, place: Place, prefix: str, count: int) -> None:
        """Put so many jobs where the workers take them."""

    def done(self, place: Place, prefix: str) -> tuple[int, float]:
        """How many jobs of a prefix have ended, and the seconds from the first one's beginning to the last one's end."""


@contextmanager
def working(system: JobSystem, place: Place, processes: int) -> Iterator[None]:
    """The workers of a system, until the end of the block."""
    plan = system.workers(place, processes)
    started = []
    with (place.folder / f"{system.name}.log").open("ab") as log:
        for command in plan.commands:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=place.folder, env=child_environment(plan.environment)))
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            wait_or_kill(process, seconds=_STOP_SECONDS)


def seconds_for(system: JobSystem, place: Place, prefix: str, count: int) -> float:
    """How long the running workers take for so many jobs. Raises `TimeoutError`."""
    system.send(place, prefix, count)
    until = time.monotonic() + _DEADLINE_SECONDS
    while True:
        done, seconds = system.done(place, prefix)
        if done >= count:
            return seconds
        if time.monotonic() > until:
            log = (place.folder / f"{system.name}.log").read_text(errors="replace")
            raise TimeoutError(f"{system.name}: {done} of {count} jobs in {_DEADLINE_SECONDS:g} s; its log ends with: {log[-500:]}")
        time.sleep(0.2)


@dataclass(frozen=True, kw_only=True)
class RedisBridge:
    """The bridge with its jobs and results in Redis and its ledger in PostgreSQL."""

    # Jobs at once in each process.
    concurrency: int
    name: str = "bridge, Redis list"

    def template(self, postgres: PostgresServer) -> str:
        """Of the newest schema."""
        return _bridge_template(postgres)

    def workers(self, place: Place, processes: int) -> Workers:
        """`bridge run`, but for the system."""
        variables = {"BRIDGE_REDIS_URL": place.redis.url, "BRIDGE_REDIS_QUEUES": "jobs"}
        return _bridges(place, processes, self.concurrency, variables)

    def send(self, place: Place, prefix: str, count: int) -> None:
        """As `bridge submit` does: the item is the job's key, its body lies beside it."""
        stage = redis.Redis.from_url(_stage(place))
        keys = [f"{prefix}{number}" for number in range(count)]
        stage.hset("jobs:bodies", mapping={key: message(key) for key in keys})
        stage.rpush("jobs", *keys)
        _move(stage, "jobs:bodies", "jobs")

    def done(self, place: Place, prefix: str) -> tuple[int, float]:
        """Ended, and their events sent."""
        return _bridge_done(place, prefix)


@dataclass(frozen=True, kw_only=True)
class PostgresBridge:
    """The bridge with everything in PostgreSQL."""

    # Jobs at once in each process.
    concurrency: int
    name: str = "bridge, PostgreSQL queue"

    def template(self, postgres: PostgresServer) -> str:
        """Of the newest schema."""
        return _bridge_template(postgres)

    def workers(self, place: Place, processes: int) -> Workers:
        """`bridge run`, but for the system."""
        return _bridges(place, processes, self.concurrency, {})

    def send(self, place: Place, prefix: str, count: int) -> None:
        """All in one transaction."""
        with psycopg.connect(place.database) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO lamina.local_messages (queue, message_id, body, attributes, sent_at, visible_at) "
                "SELECT 'jobs', %s, %s, '{}', now, now FROM lamina.clock",
                [(f"{prefix}{number}", message(f"{prefix}{number}")) for number in range(count)],
            )

    def done(self, place: Place, prefix: str) -> tuple[int, float]:
        """Ended, and their events sent."""
        return _bridge_done(place, prefix)


@dataclass(frozen=True, kw_only=True)
class Celery:
    """Celery on Redis."""

    name: str = "Celery"

    def template(self, postgres: PostgresServer) -> str:
        """With the table of the peers."""
        return _peer_template(postgres)

    def workers(self, place: Place, processes: int) -> Workers:
        """One job at a time in each process of its pool; nothing of what it can do without."""
        python = environment("celery")
        spare = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        pool = [f"--concurrency={processes}", "--pool=prefork"]
        return _peers(place, [str(python), "-m", "celery", "-A", "celery_worker", "worker", *pool, *spare])

    def send(self, place: Place, prefix: str, count: int) -> None:
        """By its own client."""
        _send_by_peer("celery", place, prefix, count, keys=("celery",))

    def done(self, place: Place, prefix: str) -> tuple[int, float]:
        """Ended; when their messages are acknowledged is not asked."""
        return _peer_done(place, prefix)


@dataclass(frozen=True, kw_only=True)
class Dramatiq:
    """Dramatiq on Redis."""

    # Of each process.
    threads: int
    name: str = "Dramatiq"

    def template(self, postgres: PostgresServer) -> str:
        """With the table of the peers."""
        return _peer_template(postgres)

    def workers(self, place: Place, processes: int) -> Workers:
        """As its command line does."""
        python = environment("dramatiq")
        size = [f"--processes={processes}", f"--threads={self.threads}"]
        return _peers(place, [str(python), "-m", "dramatiq", "dramatiq_worker", *size])

    def send(self, place: Place, prefix: str, count: int) -> None:
        """By its own client."""
        _send_by_peer("dramatiq", place, prefix, count, keys=("dramatiq:default.msgs", "dramatiq:default"))

    def done(self, place: Place, prefix: str) -> tuple[int, float]:
        """Ended; when their messages are acknowledged is not asked."""
        return _peer_done(place, prefix)


def message(key: str) -> bytes:
    """A message that asks the bridge for a job that does nothing."""
    return native.write(Job(key=key, system=SYSTEM, request={"slide": "s3://slides/one.svs"}))


def _bridge_template(postgres: PostgresServer) -> str:
    return migrated_template(postgres)


def _bridges(place: Place, processes: int, concurrency: int, variables: Mapping[str, str]) -> Workers:
    program = [sys.executable, str(Path(__file__).with_name("noop_bridge.py"))]
    common = {"BRIDGE_DATABASE": place.database, "BRIDGE_CONCURRENCY": str(concurrency), "BRIDGE_HTTP": "off"}
    return Workers(commands=[program] * processes, environment={**common, **variables})


def _bridge_done(place: Place, prefix: str) -> tuple[int, float]:
    [(count, seconds)] = place.run(
        "SELECT count(o.sent_at), coalesce(max(greatest(o.sent_at, j.finished_at)) - min(j.started_at), 0) "
        f"FROM lamina.jobs AS j JOIN lamina.outbox AS o ON o.job_key = j.key WHERE j.key LIKE '{prefix}%'"
    )
    return int(str(count)), float(str(seconds))


def _peer_template(postgres: PostgresServer) -> str:
    name = postgres.new_database().rpartition("/")[2]
    postgres.run(_PEER_TABLE, database=name)
    return name


def _peers(place: Place, command: Sequence[str]) -> Workers:
    return Workers(commands=[command], environment=_peer_variables(place, place.redis.url))


def _peer_variables(place: Place, broker: str) -> Mapping[str, str]:
    return {"PEER_DATABASE": place.database, "PEER_BROKER": broker, "PYTHONPATH": str(WORKERS)}


def _send_by_peer(peer: str, place: Place, prefix: str, count: int, *, keys: Sequence[str]) -> None:
    command = [str(environment(peer)), str(WORKERS / f"{peer}_worker.py"), prefix, str(count)]
    variables = child_environment(_peer_variables(place, _stage(place)))
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_DEADLINE_SECONDS)
    if done.returncode:
        raise PeerMissing(f"{peer} cannot send: {done.stderr.strip()[-300:]}")
    _move(redis.Redis.from_url(_stage(place)), *keys)


def _stage(place: Place) -> str:
    return f"{place.redis.url.rpartition('/')[0]}/{_STAGE}"


def _move(stage: redis.Redis, *keys: str) -> None:
    """All at once, when the workers have taken everything that was there."""
    until = time.monotonic() + _DEADLINE_SECONDS
    while True:
        moved = stage.pipeline(transaction=True)
        for key in keys:
            moved.move(key, 0)
        if all(moved.execute()):
            return
        if time.monotonic() > until:
            raise TimeoutError(f"{keys} could not be moved to the workers")
        time.sleep(0.1)


def _peer_done(place: Place, prefix: str) -> tuple[int, float]:
    [(count, seconds)] = place.run(
        "SELECT count(finished_at), coalesce(extract(epoch FROM max(finished_at) - min(started_at)), 0) "
        f"FROM peer_jobs WHERE key LIKE '{prefix}%'"
    )
    return int(str(count)), float(str(seconds))
