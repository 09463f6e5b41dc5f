"""Rollups of much at once, beside others, and while what they need refuses or is not there."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from bridge.aws.access import Aws
from bridge.errors import BridgeError, NotYetError, OverloadError, PermanentError, TooSlowError, TransientError
from bridge.platforms.labs import open_lab_platform, rollups
from bridge.rollups.labs import LabRollup
from bridge.rollups.passes import for_ever, once, one_pass, until_empty
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, TableRollup
from bridge.settings_labs import LabWorkerSettings
from bridge.store import Store
from tests.support.bridge.platform_rows import lab_store, report, rows, vital
from tests.support.inference_server.lab_classifier import Classifier
from tests.support.patience import until
from tests.support.servers.postgres import PostgresServer, migrated_template, postgres_server

OURS, ZIVO = "", "zivo"


@pytest.fixture
async def store(new_postgres_database: Callable[[], str]) -> AsyncIterator[Store]:
    async with lab_store(new_postgres_database()) as opened:
        yield opened


def rollup(store: Store, *, compat: str = OURS) -> TableRollup:
    return TableRollup(store.database, "vitals", RollupOptions(compat=compat))


async def rolled(store: Store) -> Rolled:
    return await until_empty([rollup(store)], stop=asyncio.Event())


async def many(store: Store, count: int, *, user: int = 7, unit: str, value: str = "60") -> None:
    columns = "user_id, metric_type, value, unit, start_date, end_date, data_source"
    at = f"SELECT timestamp '2024-01-01' + n * interval '1 minute' AS at FROM generate_series(1, {count}) AS n"
    readings = f"SELECT {user}, 'Heart Rate', {value}, '{unit}', at, at, 'device_sync' FROM ({at}) AS minutes"
    await store.database.change(text(f"INSERT INTO vitals_raw_data ({columns}) {readings}"))


async def test_a_batch_that_takes_too_long_is_made_smaller(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.database.change(
        text(
            "INSERT INTO vitals_raw_data (user_id, metric_type, value, unit, start_date, end_date, data_source) "
            "SELECT 7, 'Steps', 1, 'count', at, at, 'device_sync' "
            "FROM generate_series(timestamp '2026-03-02', '2026-03-02 23:59', '30 seconds') AS at"
        )
    )
    change, sizes = store.database.change, []

    async def slow(statement: Any, values: Any = None, *, then: Any = ()) -> Any:
        if then:
            sizes.append(len(json.loads(then[0][1]["ids"])))
            if sizes[-1] > 1000:
                raise TooSlowError("canceling statement due to statement timeout")
        return await change(statement, values, then=then)

    monkeypatch.setattr(store.database, "change", slow)
    assert await rolled(store) == Rolled(taken=2879)

    assert sizes == [2879, 719, 719, 719, 719, 3]
    assert [row["total_value"] for row in await rows(store, "SELECT total_value FROM vitals_daily_aggregates")] == [2879]


async def test_batches_grow_again_once_the_backlog_that_took_too_long_is_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    change, sizes = store.database.change, []

    async def slow(statement: Any, values: Any = None, *, then: Any = ()) -> Any:
        if then:
            sizes.append(len(json.loads(then[0][1]["ids"])))
            if len(sizes) == 1:
                raise TooSlowError("canceling statement due to statement timeout")
        return await change(statement, values, then=then)

    vitals = rollup(store)
    for user in (7, 8, 7):
        await store.database.change(text("DELETE FROM vitals_raw_data"))
        await many(store, 720, user=user, unit="bpm")
        with monkeypatch.context() as patched:
            patched.setattr(store.database, "change", slow)
            await until_empty([vitals], stop=asyncio.Event())

    assert sizes == [720, 500, 220, 720, 720]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compat", [OURS, ZIVO])
async def test_a_full_batch_of_readings_that_are_refused_is_done_in_time(store: Store, compat: str) -> None:
    await many(store, 20_000, unit="hertz", value="'NaN'")

    assert await rollup(store, compat=compat).roll(7) == Rolled(failed=20_000)

    # What is parked is not written again.
    await store.database.change(text("UPDATE lamina.row_failures SET error = 'known'"))
    await vital(store, 7, "Steps", 5, "count", "2026-03-02 08:00")
    assert await rolled(store) == Rolled(taken=1)
    assert [row["error"] for row in await rows(store, "SELECT DISTINCT error FROM lamina.row_failures")] == ["known"]


async def test_a_batch_takes_and_refuses_its_own_rows_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await vital(store, 7, "Steps", 5, "count", "2026-03-02 08:00")
    await vital(store, 7, "Weight", 80, "stones", "2026-03-02 08:00")
    look = store.database.look

    async def first_alone(statement: Any, values: Any = None) -> Any:
        # Rows that came while a batch was looked for, or that are more than it may have.
        return await look(statement, {**values, "limit": 1} if values and "limit" in values else values)

    monkeypatch.setattr(store.database, "look", first_alone)
    await store.database.change(text("UPDATE vitals_raw_data SET created_at = now() - CAST(id || ' hours' AS interval)"))
    assert await rollup(store).roll(7) == Rolled(failed=1)
    assert await rows(store, "SELECT 1 FROM vitals_daily_aggregates") == []
    assert await rollup(store).roll(7) == Rolled(taken=1)


async def test_a_user_who_takes_too_long_holds_no_other_up_and_is_told_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (7, 8, 9):
        await vital(store, user, "Steps", 10, "count", "2026-03-02 08:00")
    change = store.database.change

    async def slow(statement: Any, values: Any = None, *, then: Any = ()) -> Any:
        if then and values["user"] == 7:
            raise TooSlowError("canceling statement due to statement timeout")
        return await change(statement, values, then=then)

    monkeypatch.setattr(store.database, "change", slow)
    with pytest.raises(TooSlowError):
        await once([rollup(store)], stop=asyncio.Event(), pause=0.01)

    assert [row["user_id"] for row in await rows(store, "SELECT user_id FROM vitals_daily_aggregates ORDER BY user_id")] == [8, 9]


async def test_days_that_take_too_long_together_are_computed_anew_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 11):
        await vital(store, 7, "Steps", day, "count", f"2026-03-{day:02d} 08:00")
    await rolled(store)
    await store.database.change(text("DELETE FROM vitals_raw_data WHERE value IN (1, 6, 10)"))
    change, lengths = store.database.change, []

    async def slow(statement: Any, values: Any = None, *, then: Any = ()) -> Any:
        if then:
            lengths.append((then[0][1]["until"] - then[0][1]["since"]).days + 1)
            if lengths[-1] > 4:
                raise TooSlowError("canceling statement due to statement timeout")
        return await change(statement, values, then=then)

    monkeypatch.setattr(store.database, "change", slow)
    await rollup(store).recompute(7, date(2026, 3, 1), date(2026, 3, 10))

    assert lengths == [10, 5, 3, 2, 5, 3, 2]
    totals = await rows(store, "SELECT total_value FROM vitals_daily_aggregates ORDER BY date")
    assert [row["total_value"] for row in totals] == [2, 3, 4, 5, 7, 8, 9]


async def test_whoever_finds_another_at_a_users_rows_waits_or_passes_the_user_over(store: Store) -> None:
    for user in (7, 8):
        await vital(store, user, "Steps", 10, "count", "2026-03-02 08:00")
    async with await psycopg.AsyncConnection.connect(store.settings.database) as other:
        await other.execute("SELECT pg_advisory_lock(hashtext('lamina vitals'), 7)")

        with pytest.raises(NotYetError, match="another worker"):
            await one_pass(rollup(store), user=7)
        assert await one_pass(rollup(store)) == Rolled(taken=1)

    assert await rolled(store) == Rolled(taken=1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compat", [OURS, ZIVO])
async def test_a_full_batch_of_a_long_history_is_done_in_time(store: Store, compat: str) -> None:
    columns = "user_id, metric_type, value, unit, start_date, end_date, data_source"
    readings = (
        "SELECT 7, (ARRAY['Heart Rate', 'Steps'])[1 + n % 2], 60 + n % 50, (ARRAY['bpm', 'count'])[1 + n % 2], at, at, '{}' "
        "FROM (SELECT n, timestamp '2023-01-01' + n * interval '{} minutes' AS at FROM generate_series(1, {}) AS n) AS numbered"
    )
    history = f"INSERT INTO vitals_raw_categorized ({columns}) {readings.format('apple_healthkit', 10, 120_000)}"
    await store.database.change(text(history))
    await store.database.change(text(f"INSERT INTO vitals_raw_data ({columns}) {readings.format('device_sync', 75, 20_000)}"))
    # The platform's own tables have no such index.
    await store.database.change(text("DROP INDEX ix_vitals_raw_categorized_day"))

    assert await rollup(store, compat=compat).roll(7) == Rolled(taken=20_000)


USERS, READINGS = range(1, 21), 30


async def much(store: Store) -> None:
    """Readings, meals and reports of many users."""
    numbers = f"generate_series(1, {USERS[-1]}) AS one, generate_series(1, {READINGS}) AS number"
    at = "timestamp '2026-03-02' + number * interval '20 minutes'"
    inserts = {
        "vitals_raw_data (metric_type, value, unit, start_date, end_date, data_source": f"'Steps', 10, 'count', {at}, {at}, 'device_sync'",
        "nutrition_raw_data (food_item_name, meal_type, portion_size, portion_unit, calories, meal_date, meal_time, data_source": (
            f"'Food', 'lunch', 1, 'plate', 100, '2026-03-02', {at}, 'manual_entry'"
        ),
        "lab_reports (test_name, test_value, test_unit, test_date": "'Glucose', CAST(number AS text), 'mg/dL', '2026-03-02'",
    }
    for into, values in inserts.items():
        await store.database.change(text(f"INSERT INTO {into}, user_id) SELECT {values}, one FROM {numbers}"))


def crash(server: PostgresServer) -> None:
    """End a process of the server's, which ends all the others and starts anew."""
    try:
        [*others] = server.run("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
    except psycopg.OperationalError:
        return  # it is still starting
    if others:
        os.kill(random.choice(others)[0], signal.SIGKILL)


@pytest.mark.timeout(120)
async def test_a_database_that_crashes_again_and_again_loses_and_doubles_nothing() -> None:
    with postgres_server() as server:
        async with lab_store(server.new_database(template=migrated_template(server))) as store:
            await much(store)
            options, stop = RollupOptions(batch=7), asyncio.Event()
            kinds = [
                LabRollup(store.database, Classifier(), options),
                *(TableRollup(store.database, n, options) for n in ("vitals", "nutrition")),
            ]
            async with asyncio.TaskGroup() as loops:
                for _ in range(2):
                    loops.create_task(for_ever(kinds, stop=stop, interval=0.05))
                for _ in range(5):
                    await asyncio.sleep(0.7)
                    crash(server)
                # By then the last crash is one for everybody.
                await asyncio.sleep(0.3)
                async with asyncio.timeout(80):
                    while not await _all_done(store):
                        await asyncio.sleep(0.3)
                stop.set()

            steps = await rows(store, "SELECT user_id, total_value, count FROM vitals_daily_aggregates ORDER BY user_id")
            assert [tuple(row.values()) for row in steps] == [(user, 10 * READINGS, READINGS) for user in USERS]
            meals = await rows(store, "SELECT user_id, total_calories, meal_count FROM nutrition_daily_aggregates ORDER BY user_id")
            assert [tuple(row.values()) for row in meals] == [(user, 100 * READINGS, READINGS) for user in USERS]
            labs = await rows(store, "SELECT user_id, avg_value, count FROM lab_reports_monthly ORDER BY user_id")
            assert [tuple(row.values()) for row in labs] == [(user, "15.5", READINGS) for user in USERS]
            assert await rows(store, "SELECT 1 FROM lamina.row_failures") == []


async def _all_done(store: Store) -> bool:
    try:
        [left] = await rows(
            store,
            "SELECT (SELECT count(*) FROM vitals_raw_data WHERE aggregation_status <> 'categorized') "
            "+ (SELECT count(*) FROM nutrition_raw_data WHERE aggregation_status <> 'completed') "
            "+ (SELECT count(*) FROM lab_reports WHERE categorization_status <> 'categorized') AS count",
        )
    except TransientError:
        return False
    return bool(left["count"] == 0)


class Refusing(Classifier):
    """A server that does not have what is asked for, or is not there, so many times."""

    def __init__(self, error: BridgeError, *, times: int) -> None:
        super().__init__()
        self._left = [error] * times
        self.asks_in_vain = 0

    async def classify_lab_tests(self, *arguments: Any, **more: Any) -> Any:
        if self._left:
            self.asks_in_vain += 1
            raise self._left.pop()
        return await super().classify_lab_tests(*arguments, **more)


async def test_a_loop_outlives_a_server_that_refuses_lab_reports(store: Store) -> None:
    labs, others = rollups(LabWorkerSettings(), store.database, Refusing(PermanentError("no LabService [UNIMPLEMENTED]"), times=2))
    await report(store, "Glucose", "90")
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    stop = asyncio.Event()
    loop = asyncio.create_task(for_ever([*others, labs], stop=stop, interval=0.05))

    async with asyncio.timeout(60):
        while not await rows(store, "SELECT 1 FROM vitals_daily_aggregates, lab_reports_daily"):
            assert not loop.done(), loop.exception()
            await asyncio.sleep(0.05)
        stop.set()
        await loop


async def test_one_look_waits_for_a_server_that_is_not_there_yet(store: Store) -> None:
    labs, others = rollups(LabWorkerSettings(), store.database, Refusing(OverloadError("nobody is there"), times=2))
    await report(store, "Glucose", "90")

    found = await once([*others, labs], stop=asyncio.Event(), pause=0.05)

    assert found == Rolled(taken=1)


@pytest.mark.parametrize(("mode", "ends"), [("both", False), ("aggregation", True)])
async def test_a_look_that_cannot_be_ended_ends_the_loop_alone_beside_jobs(store: Store, mode: str, ends: bool) -> None:
    await report(store, "Glucose", "90")
    settings = LabWorkerSettings(ml_worker_mode=mode, aggregation_interval=0)
    async with Aws() as aws:
        refusing = Refusing(PermanentError("no LabService [UNIMPLEMENTED]"), times=9)
        platform = await open_lab_platform(settings, store.database, refusing, aws)
    stop = asyncio.Event()
    loop = asyncio.create_task(platform.loop(stop))

    if ends:
        with pytest.raises(PermanentError):
            await loop
    else:
        await until(lambda: refusing.asks_in_vain)
        assert not stop.is_set()
        stop.set()
        await loop
