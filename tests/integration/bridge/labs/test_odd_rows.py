"""Vitals and meals that are not as they should be, or that come in another order than they belong together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any

import pytest
from sqlalchemy import text

from bridge.database.migrate import migrate
from bridge.rollups.passes import until_empty
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, TableRollup
from bridge.store import Store
from tests.support.bridge.platform_rows import lab_store, meal, rows, vital

OURS, ZIVO = "", "zivo"
DAY = date(2026, 3, 2)  # a Monday


@pytest.fixture
async def store(new_postgres_database: Callable[[], str]) -> AsyncIterator[Store]:
    async with lab_store(new_postgres_database()) as opened:
        yield opened


def rollup(store: Store, name: str = "vitals", *, compat: str = OURS) -> TableRollup:
    return TableRollup(store.database, name, RollupOptions(compat=compat))


async def rolled(store: Store, name: str = "vitals", *, compat: str = OURS) -> Rolled:
    return await until_empty([rollup(store, name, compat=compat)], stop=asyncio.Event())


async def days(store: Store, metric: str) -> list[dict[str, Any]]:
    return [dict(row) for row in await rows(store, "SELECT * FROM vitals_daily_aggregates WHERE metric_type = :metric", metric=metric)]


async def test_a_parked_reading_is_tried_again_once_it_is_set_to_pending(store: Store) -> None:
    await vital(store, 7, "Weight", 80, "stones", "2026-03-02 08:00")
    assert await rolled(store) == Rolled(failed=1)
    [failure] = await rows(store, "SELECT error, due_at FROM lamina.row_failures")
    assert failure["due_at"] is None
    assert await rolled(store) == Rolled()

    # As the platform does when its user mends the unit.
    await store.database.change(text("UPDATE vitals_raw_data SET unit = 'kg', aggregation_status = 'pending'"))

    assert await rolled(store) == Rolled(taken=1)
    [day] = await days(store, "Weight")
    assert (day["average_value"], day["unit"]) == (80, "kg")
    assert await rows(store, "SELECT 1 FROM lamina.row_failures") == []


@pytest.mark.parametrize(
    ("metric", "value", "unit", "average"),
    [
        ("Heart Rate", 60, "Beats per minute", 60),
        ("Weight", 176.3698, " Pounds ", 80),
        ("Height", 70.866, "inches", 180),
        ("Workout Duration", 1.5, "hrs", 90),
        ("Workout Duration", 90, "sec", 1.5),
        ("Sleep", 450, "mins", 7.5),
        ("Distance Walking", 2500, "metres", 2.5),
        ("Active Energy", 418.4, "kilojoules", 100),
    ],
)
async def test_units_are_known_by_their_usual_spellings(store: Store, metric: str, value: float, unit: str, average: float) -> None:
    await vital(store, 7, metric, value, unit, "2026-03-02 08:00")
    await rolled(store)

    [day] = await days(store, metric)
    assert day["average_value"] == pytest.approx(average, rel=1e-4)


async def test_a_database_from_before_gets_the_spellings_that_it_lacks_and_keeps_its_own(store: Store) -> None:
    await store.database.change(text("DELETE FROM lamina.vital_units WHERE unit IN ('pounds', 'kilograms')"))
    await store.database.change(text("INSERT INTO lamina.vital_units VALUES ('Weight', 'kilograms', 2, 0, 'kg')"))
    await store.database.change(text("UPDATE lamina.alembic_version SET version_num = '0007'"))

    await migrate(store.database)

    units = await rows(store, "SELECT unit, factor FROM lamina.vital_units WHERE unit IN ('pounds', 'kilograms') ORDER BY unit")
    assert [tuple(row.values()) for row in units] == [("kilograms", 2), ("pounds", 0.45359237)]


async def test_a_parked_reading_that_is_still_wrong_is_parked_again(store: Store) -> None:
    await vital(store, 7, "Weight", 80, "stones", "2026-03-02 08:00")
    await rolled(store)
    await store.database.change(text("UPDATE vitals_raw_data SET aggregation_status = 'pending'"))

    await rolled(store)

    assert [row["aggregation_status"] for row in await rows(store, "SELECT aggregation_status FROM vitals_raw_data")] == ["failed"]
    assert await rolled(store) == Rolled()


@pytest.mark.parametrize("compat", [OURS, ZIVO])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
async def test_a_reading_that_is_no_number_is_parked_and_spoils_no_bucket(store: Store, compat: str, value: float) -> None:
    await vital(store, 7, "Heart Rate", 60, "bpm", "2026-03-02 08:00")
    await vital(store, 7, "Heart Rate", value, "bpm", "2026-03-02 08:10")
    await rolled(store, compat=compat)

    [day] = await days(store, "Heart Rate")
    assert (day["average_value"], day["max_value"], day["count"]) == (60, 60, 1)
    [failure] = await rows(store, "SELECT error, due_at FROM lamina.row_failures")
    assert "no number" in failure["error"]
    assert failure["due_at"] is None


@pytest.mark.parametrize("nutrients", [{"calories": float("nan")}, {"iron_mg": float("inf")}, {"zinc_mg": float("-inf")}])
async def test_a_meal_with_a_nutrient_that_is_no_number_is_parked_and_spoils_no_sum(store: Store, nutrients: dict[str, float]) -> None:
    await meal(store, 7, "2026-03-02", "lunch", 500, iron_mg=2, zinc_mg=3)
    await meal(store, 7, "2026-03-02", "dinner", **{"calories": 300, **nutrients})
    assert await rolled(store, "nutrition") == Rolled(taken=1, failed=1)

    [day] = await rows(store, "SELECT total_calories, total_iron_mg, total_zinc_mg, meal_count FROM nutrition_daily_aggregates")
    assert tuple(day.values()) == (500, 2, 3, 1)
    [failure] = await rows(store, "SELECT domain, error, due_at FROM lamina.row_failures")
    assert (failure["domain"], failure["due_at"]) == ("nutrition", None)
    assert "no number" in failure["error"]


async def test_nutrients_that_a_meal_does_not_tell_count_as_none(store: Store) -> None:
    await meal(store, 7, "2026-03-02", "lunch", 500, protein_g=None, iron_mg=None)
    await rolled(store, "nutrition")

    [day] = await rows(store, "SELECT total_calories, total_protein_g, total_iron_mg FROM nutrition_daily_aggregates")
    assert tuple(day.values()) == (500, 0, 0)
    [week] = await rows(store, "SELECT avg_daily_protein_g FROM nutrition_weekly_aggregates")
    assert tuple(week.values()) == (0,)


async def test_weeks_and_months_tell_every_source_that_is_in_them(store: Store) -> None:
    sources = ["apple_healthkit", "apple_healthkit", "manual_entry", "device_sync"]
    for minute, source in enumerate(sources):
        await vital(store, 7, "Steps", 10, "count", f"2026-03-0{2 + minute // 3} 08:0{minute}", data_source=source)
        await meal(store, 7, f"2026-03-0{2 + minute // 3}", "lunch", 500, data_source=source)
    for name in ("vitals", "nutrition"):
        await rolled(store, name)
        for level in ("weekly", "monthly"):
            [bucket] = await rows(store, f"SELECT primary_source, sources_included FROM {name}_{level}_aggregates")
            assert json.loads(bucket["sources_included"]) == ["apple_healthkit", "device_sync", "manual_entry"]
            assert bucket["primary_source"] == "apple_healthkit"


@pytest.mark.parametrize("first", ["Blood Pressure Systolic", "Blood Pressure Diastolic"])
async def test_pressures_that_come_one_after_the_other_are_a_pair(store: Store, first: str) -> None:
    values = {"Blood Pressure Systolic": 120, "Blood Pressure Diastolic": 80}
    for metric in sorted(values, key=lambda metric: metric != first):
        await vital(store, 7, metric, values[metric], "mmHg", "2026-03-02 08:00")
        await rolled(store)

    told = {row["notes"] for metric in values for row in await days(store, metric)}
    assert told == {"highest 120/80 at 08:00, lowest 120/80 at 08:00"}


async def test_a_pair_that_is_gone_is_no_longer_told(store: Store) -> None:
    await vital(store, 7, "Blood Pressure Systolic", 120, "mmHg", "2026-03-02 08:00")
    await vital(store, 7, "Blood Pressure Diastolic", 80, "mmHg", "2026-03-02 08:00")
    await rolled(store)
    await store.database.change(text("DELETE FROM vitals_raw_data WHERE metric_type = 'Blood Pressure Diastolic'"))

    await rollup(store).recompute(7, DAY, DAY)

    [day] = await days(store, "Blood Pressure Systolic")
    assert day["notes"] is None


async def test_buckets_whose_readings_and_copies_are_gone_are_forgotten(store: Store) -> None:
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    await rolled(store)
    await store.database.change(text("DELETE FROM vitals_raw_data"))
    await store.database.change(text("DELETE FROM vitals_raw_categorized"))

    await rollup(store).recompute(7, DAY, DAY)

    for level in ("hourly", "daily", "weekly", "monthly"):
        assert await rows(store, f"SELECT 1 FROM vitals_{level}_aggregates") == []


@pytest.mark.parametrize("compat", [OURS, ZIVO])
async def test_a_reading_that_two_workers_copied_counts_once(store: Store, compat: str) -> None:
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    await rolled(store, compat=compat)
    columns = "user_id, metric_type, value, unit, start_date, end_date, data_source"
    await store.database.change(text(f"INSERT INTO vitals_raw_categorized ({columns}) SELECT {columns} FROM vitals_raw_data"))

    await vital(store, 7, "Steps", 5, "count", "2026-03-02 08:30")
    await rolled(store, compat=compat)

    [day] = await days(store, "Steps")
    assert (day["total_value"], day["count"]) == (15, 2)


async def test_a_mapping_without_a_code_hides_none_that_has_one(store: Store) -> None:
    await store.database.change(text("INSERT INTO vitals_mappings (vital_sign, loinc_code) VALUES ('Heart Rate', NULL)"))
    await vital(store, 7, "Heart Rate", 60, "bpm", "2026-03-02 08:00")
    await rolled(store)

    assert (await days(store, "Heart Rate"))[0]["loinc_code"] == "8867-4"


@pytest.mark.parametrize(
    ("at", "week", "month"),
    [
        ("2023-12-31 23:59:59", (date(2023, 12, 25), date(2023, 12, 31)), (2023, 12)),
        ("2024-01-01 00:00:00", (date(2024, 1, 1), date(2024, 1, 7)), (2024, 1)),
        ("2024-02-29 12:00:00", (date(2024, 2, 26), date(2024, 3, 3)), (2024, 2)),
        ("2027-01-01 00:00:00", (date(2026, 12, 28), date(2027, 1, 3)), (2027, 1)),
    ],
)
async def test_weeks_begin_on_monday_and_months_end_where_they_end(
    store: Store, at: str, week: tuple[date, date], month: tuple[int, int]
) -> None:
    await vital(store, 7, "Steps", 10, "count", at)
    await meal(store, 7, at[:10], "lunch", 500)
    await rolled(store)
    await rolled(store, "nutrition")

    for table in ("vitals", "nutrition"):
        weeks = await rows(store, f"SELECT week_start_date, week_end_date FROM {table}_weekly_aggregates")
        months = await rows(store, f"SELECT year, month FROM {table}_monthly_aggregates")
        assert ([tuple(row.values()) for row in weeks], [tuple(row.values()) for row in months]) == ([week], [month])


@pytest.mark.parametrize("told", ["['manual_entry']", '["half', '["a", 5]', "manual_entry", '["\\u0000"]', ""])
async def test_sources_of_a_day_that_are_not_written_as_they_should_be_hold_nothing_up(store: Store, told: str) -> None:
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    await meal(store, 7, "2026-03-02", "lunch", 500)
    for name in ("vitals", "nutrition"):
        await rolled(store, name)
        await store.database.change(text(f"UPDATE {name}_daily_aggregates SET sources_included = :told"), {"told": told})
    await vital(store, 7, "Steps", 5, "count", "2026-03-03 08:00", data_source='a "quoted" source')
    await meal(store, 7, "2026-03-03", "lunch", 500)

    for name, source in (("vitals", 'a "quoted" source'), ("nutrition", "manual_entry")):
        assert await rolled(store, name) == Rolled(taken=1)
        [week] = await rows(store, f"SELECT sources_included FROM {name}_weekly_aggregates")
        assert json.loads(week["sources_included"]) == [source]
