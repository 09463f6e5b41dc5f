"""The lab platform's worker as a drop-in: its variables alone, jobs by the client over SQS, its tables, its modes; killed at random."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bridge.aws.access import AwsAccess
from bridge.client import JobClient
from bridge.settings import load
from bridge.store import Store, open_store
from tests.support.bridge.bridge_process import BridgeSetup, finished
from tests.support.bridge.killer import Killer
from tests.support.bridge.platform_rows import insert, meal, rows, vital
from tests.support.inference_server.server_process import running_server
from tests.support.models.built_models import built_models
from tests.support.servers.ministack import Ministack, running_ministack
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.sqs import aws_of, lying_in

pytestmark = pytest.mark.timeout(400)

QUEUE, DEAD = "production-ml-worker", "production-ml-worker-dlq"
USERS = range(1, 9)
MOST_KILLS = 6
TESTS = [("Hemoglobin", "13.5", "g/dL"), ("Gula Darah Puasa", "95", "mg/dL"), ("Moon phase", "3", "")]


@dataclass(frozen=True, kw_only=True)
class Platform:
    """All that the worker works with."""

    folder: Path
    ministack: Ministack
    # Its host and port.
    inference: str
    postgres: PostgresServer

    def setup(self, name: str, database: str, **variables: str) -> BridgeSetup:
        """A bridge that knows nothing but the worker's variables, and where the inference server is."""
        (self.folder / name).mkdir(exist_ok=True)
        given = {
            "AWS_ENDPOINT_URL": self.ministack.endpoint,
            "AWS_REGION": "us-east-1",
            "POSTGRES_SERVER": "127.0.0.1",
            "POSTGRES_PORT": str(self.postgres.port),
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": database.rpartition("/")[2],
            "BRIDGE_DATABASE": "",
        }
        return BridgeSetup(folder=self.folder / name, inference=self.inference, variables={**given, **variables})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("lab-worker")
    with running_ministack(folder) as ministack, pytest.MonkeyPatch.context() as patch:
        for name, value in ministack.environment().items():
            patch.setenv(name, value)
        asyncio.run(_make_queues(ministack))
        with running_server(built_models(), folder, "--engine", "onnxruntime:float32", "--services", "labs") as server:
            server.wait_for("catalogue_ready", seconds=100)
            yield Platform(folder=folder, ministack=ministack, inference=server.grpc, postgres=postgres)


async def _make_queues(ministack: Ministack) -> None:
    async with aws_of(ministack) as aws:
        await aws.call("sqs", "create_queue", QueueName=DEAD)
        policy = {"deadLetterTargetArn": f"arn:aws:sqs:us-east-1:000000000000:{DEAD}", "maxReceiveCount": 100}
        await aws.call("sqs", "create_queue", QueueName=QUEUE, Attributes={"RedrivePolicy": json.dumps(policy)})


@contextmanager
def client(platform: Platform) -> Iterator[JobClient]:
    url = f"{platform.ministack.endpoint}/000000000000/{QUEUE}"
    with JobClient(url, access=AwsAccess(region="us-east-1", endpoint=platform.ministack.endpoint)) as opened:
        yield opened


def worker_variables(platform: Platform, mode: str) -> dict[str, str]:
    url = f"{platform.ministack.endpoint}/000000000000/{QUEUE}"
    return {
        "ML_WORKER_MODE": mode,
        "ML_WORKER_SQS_QUEUE_URL": url,
        "ML_WORKER_WAIT_TIME": "1",
        "ML_WORKER_BATCH_SIZE": "4",
        "ML_WORKER_VISIBILITY_TIMEOUT": "4",
    }


def on(database: str, work: Callable[[Store], Any]) -> Any:
    """Do something with the tables."""

    async def opened() -> Any:
        async with open_store(load(database=database)) as store:
            return await work(store)

    return asyncio.run(opened())


def wait_for(database: str, query: str, wanted: Callable[[Sequence[Mapping[str, Any]]], bool], *, each: Callable[[], object]) -> None:
    """Until a query gives what is wanted."""
    until = time.monotonic() + 150
    while not wanted(found := on(database, lambda store: rows(store, query))):
        assert time.monotonic() < until, found
        each()


async def write_rows(store: Store) -> None:
    for user in USERS:
        for name, value, unit in TESTS:
            facts = {"test_name": name, "test_value": value, "test_unit": unit, "test_date": date(2026, 3, 2)}
            await insert(store, "lab_reports", user_id=user, extracted_from_document_id=user, **facts)
        for hour in range(5):
            await vital(store, user, "Steps", 100, "count", f"2026-03-02 {8 + hour:02d}:00")
        await meal(store, user, "2026-03-02", "lunch", 500)


WAITING = """
SELECT (SELECT count(*) FROM lab_reports WHERE categorization_status = 'pending')
     + (SELECT count(*) FROM vitals_raw_data WHERE aggregation_status <> 'categorized')
     + (SELECT count(*) FROM nutrition_raw_data WHERE aggregation_status <> 'completed') AS waiting,
       (SELECT count(*) FROM lamina.jobs WHERE state NOT IN ('succeeded', 'failed')) AS running,
       (SELECT count(*) FROM lamina.jobs) AS jobs
"""


def assert_right(database: str) -> None:
    labs = on(
        database,
        lambda store: rows(store, "SELECT user_id, loinc_code, avg_value, count FROM lab_reports_daily ORDER BY user_id, loinc_code"),
    )
    for user in USERS:
        own = [row for row in labs if row["user_id"] == user]
        assert [(row["loinc_code"][:7], row["avg_value"], row["count"]) for row in own] == [
            ("1558-6", "95", 1),
            ("718-7", "13.5", 1),
            ("UNKNOWN", "3", 1),
        ]
    steps = on(database, lambda store: rows(store, "SELECT user_id, total_value, count FROM vitals_daily_aggregates ORDER BY user_id"))
    assert [tuple(row.values()) for row in steps] == [(user, 500, 5) for user in USERS]
    meals = on(database, lambda store: rows(store, "SELECT user_id, total_calories FROM nutrition_daily_aggregates ORDER BY user_id"))
    assert [tuple(row.values()) for row in meals] == [(user, 500) for user in USERS]


def test_jobs_of_every_kind_are_done_while_workers_are_killed(platform: Platform) -> None:
    database = platform.postgres.new_database()
    setups = [platform.setup(name, database, **worker_variables(platform, "sqs")) for name in ("one", "two")]
    setups[0].call("migrate", "--with", "labs")
    on(database, write_rows)
    sent = 0
    killer = Killer(setups, random.Random(7), database=database, pause=(1.0, 2.0), progress=lambda: on(database, _ended))

    def strike() -> None:
        if killer.kills.total() < MOST_KILLS:
            killer.let_work_and_strike()

    try:
        with client(platform) as jobs:
            for user in USERS:
                tests = [{"test_name": name, "test_value": value, "test_unit": unit} for name, value, unit in TESTS]
                jobs.send_lab_categorization_job(user_id=user, document_id=user, tests=tests, priority="high")
                jobs.send_pending_vitals_job(user_id=user)
                jobs.send_pending_nutrition_job(user_id=user)
                sent += 3
                if user == USERS[len(USERS) // 2]:
                    strike()
            jobs.send_loinc_mapping_job(test_name="Platelet count")
        strike()
        wait_for(
            database,
            WAITING,
            lambda found: found[0]["waiting"] == 0 and found[0]["running"] == 0 and found[0]["jobs"] == sent + 1,
            each=strike,
        )
    finally:
        killer.close()

    assert {"SIGKILL", "SIGTERM"} == set(killer.kills)
    assert_right(database)
    states = on(database, lambda store: rows(store, "SELECT state, count(*) AS count FROM lamina.jobs GROUP BY state"))
    assert [tuple(row.values()) for row in states] == [("succeeded", sent + 1)]
    mapped = on(database, lambda store: rows(store, "SELECT loinc_code FROM lab_test_mappings WHERE test_name = 'platelet count'"))
    assert [row["loinc_code"] for row in mapped] == ["777-3"]


async def _ended(store: Store) -> Sequence[Mapping[str, Any]]:
    return await rows(store, "SELECT count(*) AS count FROM lamina.jobs WHERE state = 'succeeded'")


def test_what_cannot_be_read_or_done_lies_in_the_dead_letter_queue(platform: Platform) -> None:
    database = platform.postgres.new_database()
    # Each is put there once: no lease runs out over a pause of the machine.
    setup = platform.setup("dead", database, **{**worker_variables(platform, "sqs"), "ML_WORKER_VISIBILITY_TIMEOUT": "60"})
    setup.call("migrate", "--with", "labs")
    on(database, lambda store: store.database.change(text("DROP TABLE nutrition_raw_data")))
    asyncio.run(_send_broken(platform))
    with client(platform) as jobs:
        jobs.send_pending_nutrition_job(user_id=7)

    with setup.running():
        wait_for(
            database,
            "SELECT count(*) AS count FROM lamina.dead_letters",
            lambda found: found[0]["count"] == 2,
            each=lambda: time.sleep(0.5),
        )
        found: list[tuple[Mapping[str, str], bytes]] = []
        until = time.monotonic() + 60
        while len(found) < 2 and time.monotonic() < until:
            found += asyncio.run(_dead(platform))

    bodies = [json.loads(body).get("job_type") for _, body in found]
    assert sorted(bodies) == ["make_coffee", "process_pending_nutrition"]
    given_up = next(attributes for attributes, body in found if b"nutrition" in body)
    assert given_up["UserId"] == "7"
    assert "after 3 attempts" in given_up["Reason"]


async def _send_broken(platform: Platform) -> None:
    async with aws_of(platform.ministack) as aws:
        url = f"{platform.ministack.endpoint}/000000000000/{QUEUE}"
        await aws.call("sqs", "send_message", QueueUrl=url, MessageBody='{"job_type": "make_coffee"}')


async def _dead(platform: Platform) -> list[tuple[Mapping[str, str], bytes]]:
    async with aws_of(platform.ministack) as aws:
        return await lying_in(aws, DEAD, wait_seconds=1)


def test_mode_aggregation_ends_once_nothing_waits_where_it_is_to_look_once(platform: Platform) -> None:
    database = platform.postgres.new_database()
    setup = platform.setup("once", database, ML_WORKER_MODE="aggregation", AGGREGATION_INTERVAL="0")
    setup.call("migrate", "--with", "labs")
    on(database, write_rows)

    finished(setup.start("run"), seconds=90)

    assert_right(database)


def test_rows_are_taken_up_and_days_computed_anew_by_hand(platform: Platform) -> None:
    database = platform.postgres.new_database()
    setup = platform.setup("by-hand", database)
    setup.call("migrate", "--with", "labs")
    on(database, write_rows)

    assert setup.call("rollups", "run", "--kind", "vitals", "--kind", "nutrition", "--user", "7") == "6 rows taken up, 0 could not be\n"
    assert setup.call("rollups", "run") == f"{len(USERS) * 9 - 6} rows taken up, 0 could not be\n"
    assert_right(database)

    on(
        database,
        lambda store: store.database.change(text("DELETE FROM vitals_raw_data WHERE user_id = 7 AND start_date > '2026-03-02 09:30'")),
    )
    setup.call("rollups", "recompute", "--user", "7", "--since", "2026-03-01", "--until", "2026-03-03")
    [day] = on(database, lambda store: rows(store, "SELECT total_value, count FROM vitals_daily_aggregates WHERE user_id = 7"))
    assert tuple(day.values()) == (200, 2)


def test_mode_both_does_jobs_and_looks_at_the_tables_until_it_is_stopped(platform: Platform) -> None:
    database = platform.postgres.new_database()
    setup = platform.setup("both", database, **worker_variables(platform, "both"), AGGREGATION_INTERVAL="0.5")
    setup.call("migrate", "--with", "labs")
    with setup.running() as bridge:
        with client(platform) as jobs:
            jobs.send_loinc_mapping_job(test_name="Platelet count")
        on(database, write_rows)
        wait_for(
            database,
            WAITING,
            lambda found: found[0]["waiting"] == 0 and found[0]["running"] == 0 and found[0]["jobs"] == 1,
            each=lambda: time.sleep(0.3),
        )
        bridge.terminate()
        assert bridge.wait(30) == 0
    assert_right(database)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ML_WORKER_MODE": "neither"}, "ML_WORKER_MODE"),
        ({"ML_WORKER_MODE": "sqs", "ML_WORKER_SQS_QUEUE_URL": ""}, "ML_WORKER_SQS_QUEUE_URL is not set"),
        ({"ML_WORKER_MODE": "aggregation", "DEFAULT_TIMEZONE": "Mars/Olympus"}, "DEFAULT_TIMEZONE"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_starts(platform: Platform, variables: dict[str, str], named: str) -> None:
    process = platform.setup("wrong", platform.postgres.new_database(), **variables).start("run")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert named in errors
