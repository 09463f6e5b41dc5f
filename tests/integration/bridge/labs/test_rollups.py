"""Vitals and nutrition, rolled up on a real PostgreSQL beside figures worked out by hand: ours, and those of the worker that we replace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any

import pytest
from sqlalchemy import text

from bridge.rollups.passes import for_ever, one_pass, until_empty
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


def rollup(store: Store, name: str = "vitals", *, compat: str = OURS, **options: Any) -> TableRollup:
    return TableRollup(store.database, name, RollupOptions(compat=compat, **options))


async def rolled(store: Store, name: str = "vitals", *, compat: str = OURS, **options: Any) -> Rolled:
    return await until_empty([rollup(store, name, compat=compat, **options)], stop=asyncio.Event())


async def bucket(store: Store, level: str, metric: str, **more: Any) -> dict[str, Any]:
    found = await rows(store, f"SELECT * FROM vitals_{level}_aggregates WHERE metric_type = :metric ORDER BY id", metric=metric)
    matching = [row for row in found if all(row[name] == value for name, value in more.items())]
    assert len(matching) == 1, found
    return dict(matching[0])


async def three_readings(store: Store) -> None:
    # Two in one hour and one in the next: the means differ by whether hours or readings count alike.
    await vital(store, 7, "Heart Rate", 60, "bpm", "2026-03-02 08:10")
    await vital(store, 7, "Heart Rate", 80, "bpm", "2026-03-02 08:50")
    await vital(store, 7, "Heart Rate", 100, "bpm", "2026-03-02 09:30")


@pytest.mark.parametrize(("compat", "average"), [(OURS, (60 + 80 + 100) / 3), (ZIVO, (70 + 100) / 2)])
async def test_a_days_mean_is_that_of_its_readings_and_was_that_of_its_hours(store: Store, compat: str, average: float) -> None:
    await three_readings(store)
    assert await rolled(store, compat=compat) == Rolled(taken=3)

    hours = await rows(store, "SELECT * FROM vitals_hourly_aggregates ORDER BY hour_start")
    assert [(row["average_value"], row["min_value"], row["max_value"], row["count"]) for row in hours] == [
        (70, 60, 80, 2),
        (100, 100, 100, 1),
    ]
    assert [row["total_value"] for row in hours] == [None, None], "heart beats do not add up"
    day = await bucket(store, "daily", "Heart Rate")
    assert day["average_value"] == pytest.approx(average)
    assert (day["min_value"], day["max_value"], day["count"], day["unit"], day["loinc_code"]) == (60, 100, 3, "bpm", "8867-4")
    assert (await bucket(store, "weekly", "Heart Rate"))["days_with_data"] == 1


@pytest.mark.parametrize(("compat", "average"), [(OURS, (60 + 80 + 100 + 40) / 4), (ZIVO, (85 + 40) / 2)])
async def test_a_weeks_and_a_months_mean_weigh_days_by_their_readings(store: Store, compat: str, average: float) -> None:
    await three_readings(store)
    await vital(store, 7, "Heart Rate", 40, "bpm", "2026-03-04 10:00")
    await rolled(store, compat=compat)

    for level in ("weekly", "monthly"):
        found = await bucket(store, level, "Heart Rate")
        assert found["average_value"] == pytest.approx(average)
        assert (found["min_value"], found["max_value"], found["days_with_data"]) == (40, 100, 2)
    week = await bucket(store, "weekly", "Heart Rate")
    assert (week["week_start_date"], week["week_end_date"]) == (DAY, date(2026, 3, 8))


@pytest.mark.parametrize(("compat", "weight"), [(OURS, (80 + 176.3698 * 0.45359237) / 2), (ZIVO, (80 + 176.3698) / 2)])
async def test_units_are_converted_and_were_mixed(store: Store, compat: str, weight: float) -> None:
    await vital(store, 7, "Weight", 80, "kg", "2026-03-02 08:00")
    await vital(store, 7, "Weight", 176.3698, "lbs", "2026-03-02 08:30")
    await rolled(store, compat=compat)

    day = await bucket(store, "daily", "Weight")
    assert day["average_value"] == pytest.approx(weight, abs=1e-3)
    assert day["unit"] == ("kg" if compat == OURS else "lbs")


async def test_fahrenheit_and_millimoles_are_converted(store: Store) -> None:
    await vital(store, 7, "Temperature", 98.6, "°F", "2026-03-02 08:00")
    await vital(store, 7, "Blood Sugar", 5.5, "mmol/L", "2026-03-02 08:00")
    await rolled(store)

    assert (await bucket(store, "daily", "Temperature"))["average_value"] == pytest.approx(37)
    assert (await bucket(store, "daily", "Blood Sugar"))["average_value"] == pytest.approx(5.5 * 18.0156)


async def test_a_unit_that_nobody_knows_parks_its_row_and_holds_nothing_up(store: Store) -> None:
    await vital(store, 7, "Weight", 80, "kg", "2026-03-02 08:00")
    await vital(store, 7, "Weight", 12, "stone", "2026-03-02 08:30")
    await rolled(store)

    assert (await bucket(store, "daily", "Weight"))["count"] == 1
    [failure] = await rows(store, "SELECT * FROM lamina.row_failures")
    assert "stone" in failure["error"]
    assert failure["due_at"] is None
    assert await rolled(store) == Rolled()

    await store.database.change(text("INSERT INTO lamina.vital_units VALUES ('Weight', 'stone', 6.35029, 0, 'kg')"))
    await store.database.change(text("DELETE FROM lamina.row_failures"))
    await rolled(store)
    assert (await bucket(store, "daily", "Weight"))["count"] == 2


@pytest.mark.parametrize(("compat", "flights"), [(OURS, 5), (ZIVO, None)])
async def test_what_adds_up_is_totalled(store: Store, compat: str, flights: float | None) -> None:
    await vital(store, 7, "Steps", 1000, "count", "2026-03-02 08:00")
    await vital(store, 7, "Steps", 500, "count", "2026-03-02 09:00")
    await vital(store, 7, "Flights Climbed", 3, "count", "2026-03-02 08:00")
    await vital(store, 7, "Flights Climbed", 2, "count", "2026-03-02 09:00")
    await rolled(store, compat=compat)

    assert (await bucket(store, "daily", "Steps"))["total_value"] == 1500
    assert (await bucket(store, "monthly", "Steps"))["total_value"] == 1500
    assert (await bucket(store, "daily", "Flights Climbed"))["total_value"] == flights


# 22:00 to 2:00 and 1:00 to 4:00 overlap, 5:00 to 6:00 stands alone, and 4:00 to 5:00 was spent awake.
async def a_night(store: Store) -> None:
    await vital(store, 7, "Sleep", 240, "min", "2026-03-02 00:00", minutes=240)
    await vital(store, 7, "Sleep", 180, "min", "2026-03-02 03:00", minutes=180)
    await vital(store, 7, "Sleep", 60, "min", "2026-03-02 07:00", minutes=60)
    await vital(store, 7, "Sleep", 60, "min", "2026-03-02 06:00", minutes=60, notes="Awake")


@pytest.mark.parametrize(("compat", "hours"), [(OURS, 6 + 1), (ZIVO, 4 + 1)])
async def test_sleep_is_the_union_of_its_stretches_and_was_the_longest_of_those_that_overlap(
    store: Store, compat: str, hours: float
) -> None:
    await a_night(store)
    await rolled(store, compat=compat)

    day = await bucket(store, "daily", "Sleep")
    assert (day["total_value"], day["average_value"], day["duration_minutes"], day["unit"]) == (hours, hours, hours * 60, "hours")


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 7), ("2026-10-25", 9), ("2026-03-02", 8)])
async def test_a_night_in_which_the_clocks_change_has_its_real_length(store: Store, day: str, hours: float) -> None:
    await vital(store, 7, "Sleep", 480, "min", f"{day} 00:30", minutes=480)
    await rolled(store, zone="Europe/Berlin")

    assert (await bucket(store, "daily", "Sleep"))["total_value"] == pytest.approx(hours)


async def test_blood_pressure_is_told_in_pairs(store: Store) -> None:
    for at, systolic, diastolic in (("08:00", 150, 95), ("21:00", 110, 70), ("12:00", 130, 85)):
        await vital(store, 7, "Blood Pressure Systolic", systolic, "mmHg", f"2026-03-02 {at}")
        await vital(store, 7, "Blood Pressure Diastolic", diastolic, "mmHg", f"2026-03-02 {at}")
    await rolled(store)

    upper, lower = await bucket(store, "daily", "Blood Pressure Systolic"), await bucket(store, "daily", "Blood Pressure Diastolic")
    assert upper["notes"] == lower["notes"] == "highest 150/95 at 08:00, lowest 110/70 at 21:00"
    assert (upper["average_value"], upper["loinc_code"], lower["loinc_code"]) == (130, "8480-6", "8462-4")


async def everything(store: Store) -> dict[str, Any]:
    levels = ("hourly", "daily", "weekly", "monthly")
    wanted = "metric_type, total_value, average_value, min_value, max_value, unit, loinc_code"
    return {level: await rows(store, f"SELECT {wanted} FROM vitals_{level}_aggregates ORDER BY id") for level in levels}


async def test_late_data_and_edits_change_the_buckets_and_repetition_does_not(store: Store) -> None:
    await three_readings(store)
    await rolled(store)
    before = await everything(store)
    await store.database.change(text("UPDATE vitals_raw_data SET aggregation_status = 'pending'"))
    assert await rolled(store) == Rolled(taken=3)
    assert await everything(store) == before

    await vital(store, 7, "Heart Rate", 120, "bpm", "2026-03-02 23:00")
    await store.database.change(text("UPDATE vitals_raw_data SET value = 70, aggregation_status = 'pending' WHERE value = 60"))
    await rolled(store)

    day = await bucket(store, "daily", "Heart Rate")
    assert (day["average_value"], day["count"]) == (pytest.approx((70 + 80 + 100 + 120) / 4), 4)


async def test_what_was_deleted_is_no_longer_counted_once_its_days_are_computed_anew(store: Store) -> None:
    await three_readings(store)
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    await rolled(store)
    await store.database.change(text("DELETE FROM vitals_raw_data WHERE value IN (100, 10)"))

    await rollup(store).recompute(7, DAY, DAY)

    assert (await bucket(store, "daily", "Heart Rate"))["average_value"] == 70
    assert len(await rows(store, "SELECT 1 FROM vitals_hourly_aggregates")) == 1
    assert await rows(store, "SELECT 1 FROM vitals_monthly_aggregates WHERE metric_type = 'Steps'") == []


async def test_a_row_that_cannot_be_done_holds_no_other_up_and_is_tried_later(store: Store) -> None:
    for hour in range(8):
        await vital(store, 7, "Heart Rate", 60, "bpm", f"2026-03-02 {hour:02d}:00")
    await vital(store, 7, "Sleep", 1e300, "min", "2026-03-02 01:00")
    await rolled(store)

    assert (await bucket(store, "daily", "Heart Rate"))["count"] == 8
    [failure] = await rows(store, "SELECT * FROM lamina.row_failures")
    assert (failure["domain"], failure["attempts"]) == ("vitals", 1)
    assert failure["due_at"] is not None
    assert [row["aggregation_status"] for row in await rows(store, "SELECT aggregation_status FROM vitals_raw_data WHERE value > 1e9")] == [
        "failed"
    ]
    for attempt in range(2, 6):
        await store.database.change(text("UPDATE lamina.row_failures SET due_at = 0"))
        assert await rolled(store) == Rolled(failed=1)
        [failure] = await rows(store, "SELECT * FROM lamina.row_failures")
        assert failure["attempts"] == attempt
    assert failure["due_at"] is None, "it is parked"
    assert await rolled(store) == Rolled()


async def test_users_take_turns(store: Store) -> None:
    for minute in range(6):
        await vital(store, 1, "Steps", 1, "count", f"2026-03-02 08:0{minute}")
    await vital(store, 2, "Steps", 1, "count", "2026-03-02 08:00")

    await one_pass(rollup(store, batch=2))

    assert [row["user_id"] for row in await rows(store, "SELECT user_id FROM vitals_daily_aggregates ORDER BY user_id")] == [1, 2]


async def test_one_users_pass_leaves_the_others_alone(store: Store) -> None:
    await vital(store, 1, "Steps", 1, "count", "2026-03-02 08:00")
    await vital(store, 2, "Steps", 1, "count", "2026-03-02 08:00")

    await until_empty([rollup(store)], stop=asyncio.Event(), user=2)

    assert [row["user_id"] for row in await rows(store, "SELECT user_id FROM vitals_daily_aggregates")] == [2]


async def test_any_number_of_workers_may_run_at_once(store: Store) -> None:
    for user in range(4):
        for minute in range(30):
            await vital(store, user, "Steps", 10, "count", f"2026-03-02 08:{minute:02d}")

    await asyncio.gather(*(rolled(store, batch=7) for _ in range(4)))

    days = await rows(store, "SELECT user_id, total_value FROM vitals_daily_aggregates ORDER BY user_id")
    assert [(row["user_id"], row["total_value"]) for row in days] == [(user, 300) for user in range(4)]


async def test_rows_that_a_dead_worker_left_in_processing_are_taken_up(store: Store) -> None:
    await vital(store, 7, "Steps", 1, "count", "2026-03-02 08:00", aggregation_status="processing")

    assert await rolled(store) == Rolled(taken=1)


async def test_the_permanent_loop_takes_up_what_comes_and_stops_when_told(store: Store) -> None:
    stop = asyncio.Event()
    loop = asyncio.create_task(for_ever([rollup(store), rollup(store, "nutrition")], stop=stop, interval=0.1))
    await vital(store, 7, "Steps", 1, "count", "2026-03-02 08:00")
    await meal(store, 7, "2026-03-02", "lunch", 500)

    async with asyncio.timeout(60):
        while not await rows(store, "SELECT 1 FROM vitals_daily_aggregates, nutrition_daily_aggregates"):
            await asyncio.sleep(0.05)
        stop.set()
        await loop


async def test_nutrition_is_summed_by_day_and_averaged_over_the_days_that_have_data(store: Store) -> None:
    await meal(store, 7, "2026-03-02", "breakfast", 400, protein_g=10)
    await meal(store, 7, "2026-03-02", "Lunch", 600, protein_g=30)
    await meal(store, 7, "2026-03-04", "other", 500, protein_g=20)
    assert await rolled(store, "nutrition") == Rolled(taken=3)

    days = await rows(store, "SELECT * FROM nutrition_daily_aggregates ORDER BY date")
    assert [(row["total_calories"], row["total_protein_g"], row["meal_count"]) for row in days] == [(1000, 40, 2), (500, 20, 1)]
    assert (days[0]["breakfast_count"], days[0]["breakfast_calories"], days[0]["lunch_calories"], days[0]["snack_calories"]) == (
        1,
        400,
        600,
        0,
    )
    [week] = await rows(store, "SELECT * FROM nutrition_weekly_aggregates")
    assert (week["avg_daily_calories"], week["total_weekly_calories"], week["total_weekly_meals"], week["days_with_data"]) == (
        750,
        1500,
        3,
        2,
    )
    [month] = await rows(store, "SELECT * FROM nutrition_monthly_aggregates")
    assert (month["avg_daily_protein_g"], month["total_monthly_meals"], month["year"], month["month"]) == (30, 3, 2026, 3)
    assert {row["aggregation_status"] for row in await rows(store, "SELECT aggregation_status FROM nutrition_raw_data")} == {"completed"}


async def test_a_meal_that_failed_before_is_tried_again_and_a_deleted_one_forgotten(store: Store) -> None:
    await meal(store, 7, "2026-03-02", "lunch", 600, aggregation_status="failed")
    await meal(store, 7, "2026-03-02", "dinner", 400)
    assert await rolled(store, "nutrition") == Rolled(taken=2)

    await store.database.change(text("DELETE FROM nutrition_raw_data"))
    await rollup(store, "nutrition").recompute(7, DAY, DAY)

    for level in ("daily", "weekly", "monthly"):
        assert await rows(store, f"SELECT 1 FROM nutrition_{level}_aggregates") == []


async def test_the_old_figures_come_back_whole_after_ours(store: Store) -> None:
    async def readings(user: int) -> None:
        await vital(store, user, "Weight", 70, "kg", "2026-03-02 08:00")
        await vital(store, user, "Weight", 155, "lb", "2026-03-02 09:00")
        await vital(store, user, "Steps", 900, "count", "2026-03-03 09:00")
        await vital(store, user, "Blood Pressure Systolic", 120, "mmHg", "2026-03-02 08:00")
        await vital(store, user, "Blood Pressure Diastolic", 80, "mmHg", "2026-03-02 08:00")

    async def figures(level: str, user: int) -> list[dict[str, Any]]:
        found = await rows(store, f"SELECT * FROM vitals_{level}_aggregates WHERE user_id = :user ORDER BY metric_type", user=user)
        return [{name: value for name, value in row.items() if name not in {"id", "user_id", "created_at", "updated_at"}} for row in found]

    await readings(7)
    await rolled(store)
    await readings(8)
    await rolled(store, compat=ZIVO)
    await rollup(store, compat=ZIVO).recompute(7, DAY, date(2026, 3, 3))

    for level in ("hourly", "daily", "weekly", "monthly"):
        assert await figures(level, 8) == await figures(level, 7), level
    assert {"mmHg", "count", "lb"} == {row["unit"] for row in await figures("weekly", 7)}
