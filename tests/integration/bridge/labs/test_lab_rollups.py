"""Lab reports, categorised and rolled up on a real PostgreSQL beside figures worked out by hand: ours, and those of the old worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date
from typing import Any

import pytest
from sqlalchemy import text

from bridge.errors import OverloadError
from bridge.job import Delivery
from bridge.rollups.labs import LabRollup, platform_code
from bridge.rollups.passes import until_empty
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, TableRollup
from bridge.store import Store
from bridge.systems.labs.platform_handler import PlatformLabHandler
from tests.support.bridge.platform_rows import insert, lab_store, meal, report, rows, vital
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.inference_server.lab_classifier import GLUCOSE, GLUCOSE_FACTOR, HEMOGLOBIN, Classifier

OURS, ZIVO = "", "zivo"


@pytest.fixture
def classifier() -> Classifier:
    return Classifier()


@pytest.fixture
async def store(new_postgres_database: Callable[[], str]) -> AsyncIterator[Store]:
    async with lab_store(new_postgres_database()) as opened:
        yield opened


async def rolled(store: Store, classifier: Classifier, *, compat: str = OURS) -> Rolled:
    rollup = LabRollup(store.database, classifier, RollupOptions(compat=compat))
    return await until_empty([rollup], stop=asyncio.Event())


async def bucket(store: Store, level: str, code: str = GLUCOSE) -> Mapping[str, Any]:
    found = await rows(store, f"SELECT * FROM lab_reports_{level} WHERE loinc_code = :code", code=code)
    assert len(found) == 1, found
    return found[0]


async def test_reports_are_copied_with_category_and_code_and_their_names_are_learnt(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "95", test_category="Sugar", reference_range="70-100", extracted_from_document_id=12)
    assert await rolled(store, classifier) == Rolled(taken=1)

    [copy] = await rows(store, "SELECT * FROM lab_report_categorized")
    assert (copy["loinc_code"], copy["inferred_test_category"], copy["test_category"]) == (GLUCOSE, "Diabetes Panel", "Sugar")
    assert (copy["test_value"], copy["test_code"], copy["aggregation_status"], copy["extracted_from_document_id"]) == (
        "95",
        "GLUCOSE",
        "complete",
        12,
    )
    [original] = await rows(store, "SELECT * FROM lab_reports")
    assert (original["categorization_status"], original["failure_reason"], copy["id"]) == ("categorized", None, original["id"])
    [name] = await rows(store, "SELECT * FROM lab_test_mappings")
    assert (name["test_name"], name["loinc_code"], name["loinc_source"], name["is_standardized"]) == ("glucose", GLUCOSE, "LOINC", False)
    assert name["gpt_suggested_category"] == "Sugar"


@pytest.mark.parametrize(("name", "value", "reason"), [("Glucose", None, "Missing test_value"), ("  ", "1", "Missing test_name")])
async def test_a_report_that_lacks_something_is_told_so_and_holds_nobody_up(
    store: Store, classifier: Classifier, name: str, value: str | None, reason: str
) -> None:
    await report(store, name, value)
    await report(store, "Hemoglobin", "13")
    await rolled(store, classifier)

    found = await rows(store, "SELECT categorization_status, failure_reason FROM lab_reports ORDER BY id")
    assert [tuple(row.values()) for row in found] == [("insufficient", reason), ("categorized", None)]


async def test_what_people_wrote_about_a_name_comes_first(store: Store, classifier: Classifier) -> None:
    facts = {"test_name": "glucose", "test_name_standardized": "Blood Glucose", "test_code": "GLU", "test_category": "Sugar Panel"}
    await insert(store, "lab_test_mappings", **facts, loinc_code="14749-6", loinc_source="CHATGPT")
    await report(store, "GLUCOSE", "95")
    await rolled(store, classifier)

    [copy] = await rows(store, "SELECT * FROM lab_report_categorized")
    assert (copy["test_name"], copy["test_code"], copy["inferred_test_category"], copy["loinc_code"]) == (
        "Blood Glucose",
        "GLU",
        "Sugar Panel",
        "14749-6",
    )


# 90 mg/dL twice on one day, and 6 mmol/L, which is 108.0936 mg/dL.
@pytest.mark.parametrize(
    ("compat", "mean", "most", "unit"),
    [(OURS, (90 + 91 + 6 * GLUCOSE_FACTOR) / 3, 6 * GLUCOSE_FACTOR, "mg/dL"), (ZIVO, (90 + 91 + 6) / 3, 91, "mmol/L")],
)
async def test_units_of_a_day_are_converted_and_were_mixed(
    store: Store, classifier: Classifier, compat: str, mean: float, most: float, unit: str
) -> None:
    await report(store, "Glucose", "90")
    await report(store, "Glucose", "91")
    await report(store, "Glucose", "6", "mmol/L")
    await rolled(store, classifier, compat=compat)

    day = await bucket(store, "daily")
    assert float(day["avg_value"]) == pytest.approx(mean, abs=1e-3)
    assert float(day["max_value"]) == pytest.approx(most, abs=1e-3)
    assert (day["count"], day["unit"]) == (3, unit)


async def test_a_unit_that_cannot_be_converted_is_left_out_of_the_mean(store: Store, classifier: Classifier) -> None:
    await report(store, "Hemoglobin", "13", "g/dL")
    await report(store, "Hemoglobin", "14", "g/dL")
    await report(store, "Hemoglobin", "8.1", "mmol/L")
    await rolled(store, classifier)

    day = await bucket(store, "daily", HEMOGLOBIN)
    assert (day["avg_value"], day["count"], day["unit"]) == ("13.5", 2, "g/dL")


# Three results of 80 on one day, one of 120 on another.
@pytest.mark.parametrize(("compat", "mean"), [(OURS, "90"), (ZIVO, "100")])
async def test_months_quarters_and_years_weigh_days_by_their_results(store: Store, classifier: Classifier, compat: str, mean: str) -> None:
    for value in ("79", "80", "81"):
        await report(store, "Glucose", value)
    await report(store, "Glucose", "120", day="2026-03-20")
    await rolled(store, classifier, compat=compat)

    for level in ("monthly", "quarterly", "yearly"):
        found = await bucket(store, level)
        assert (found["avg_value"], found["min_value"], found["max_value"], found["count"]) == (mean, "79", "120", 4), level
    assert ((await bucket(store, "quarterly"))["quarter"], (await bucket(store, "monthly"))["month"]) == (1, 3)


@pytest.mark.parametrize(("compat", "status"), [(OURS, "green"), (ZIVO, "amber")])
async def test_the_status_above_the_day_is_that_of_the_mean_and_was_always_amber(
    store: Store, classifier: Classifier, compat: str, status: str
) -> None:
    await report(store, "Glucose", "90", reference_range="70-100", test_status="Normal")
    await rolled(store, classifier, compat=compat)

    assert {(await bucket(store, level))["status"] for level in ("daily", "monthly", "yearly")} == {status}
    day = await bucket(store, "daily")
    assert (day["normal_range_min"], day["normal_range_max"]) == (70, 100)


@pytest.mark.parametrize(("told", "status"), [("green", "green"), ("red", "red"), ("High", "amber"), ("critical", "red"), (None, "amber")])
async def test_the_status_of_a_day_is_what_its_reports_tell(store: Store, classifier: Classifier, told: str | None, status: str) -> None:
    await report(store, "Glucose", "90", test_status=told)
    await rolled(store, classifier)

    assert (await bucket(store, "daily"))["status"] == status


@pytest.mark.parametrize(("compat", "buckets"), [(OURS, 2), (ZIVO, 1)])
async def test_unknown_tests_are_kept_apart_and_were_one(store: Store, classifier: Classifier, compat: str, buckets: int) -> None:
    await report(store, "Moon phase", "1")
    await report(store, "Tide", "1")
    await rolled(store, classifier, compat=compat)

    found = await rows(store, "SELECT loinc_code FROM lab_reports_daily")
    assert len(found) == buckets
    assert all(row["loinc_code"].startswith("UNKNOWN") and len(row["loinc_code"]) <= 20 for row in found)


async def test_words_stay_words(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "negative")
    await report(store, "Glucose", "trace")
    await rolled(store, classifier)

    day = await bucket(store, "daily")
    assert (day["avg_value"], day["min_value"], day["max_value"], day["count"]) == ("negative, trace", "trace", "negative", 2)


async def test_an_edited_report_moves_and_a_repeated_pass_changes_nothing(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90")
    await report(store, "Glucose", "100")
    await rolled(store, classifier)
    before = await bucket(store, "yearly")
    await store.database.change(text("UPDATE lab_reports SET categorization_status = 'pending'"))
    await rolled(store, classifier)
    again = await bucket(store, "yearly")
    assert {name: value for name, value in again.items() if name != "updated_at"} == {
        name: value for name, value in before.items() if name != "updated_at"
    }

    change = (
        "UPDATE lab_reports SET test_value = '120', test_date = '2026-04-01', categorization_status = 'pending' WHERE test_value = '100'"
    )
    await store.database.change(text(change))
    await rolled(store, classifier)

    days = await rows(store, "SELECT date, avg_value, count FROM lab_reports_daily ORDER BY date")
    assert [tuple(row.values()) for row in days] == [(date(2026, 3, 2), "90", 1), (date(2026, 4, 1), "120", 1)]
    months = await rows(store, "SELECT month, avg_value FROM lab_reports_monthly ORDER BY month")
    assert [tuple(row.values()) for row in months] == [(3, "90"), (4, "120")]


async def test_a_deleted_report_is_forgotten_once_its_day_is_computed_anew(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90")
    await rolled(store, classifier)
    await store.database.change(text("DELETE FROM lab_reports"))

    await LabRollup(store.database, classifier, RollupOptions()).recompute(7, date(2026, 3, 1), date(2026, 3, 31))

    for level in ("daily", "monthly", "quarterly", "yearly"):
        assert await rows(store, f"SELECT 1 FROM lab_reports_{level}") == []


async def test_a_server_that_is_down_changes_nothing(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90")
    classifier.down = True

    with pytest.raises(OverloadError):
        await rolled(store, classifier)

    assert [row["categorization_status"] for row in await rows(store, "SELECT categorization_status FROM lab_reports")] == ["pending"]


async def test_the_same_result_reported_twice_is_no_error(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90")
    await report(store, "Glucose", "90")

    assert await rolled(store, classifier) == Rolled(taken=2)
    assert (await bucket(store, "daily"))["avg_value"] == "90"


def test_the_platforms_own_code_of_a_name() -> None:
    assert platform_code("Vitamin D (25-OH)") == "VITAMIN_D_25-OH"
    assert len(platform_code("x" * 200)) == 50


def delivery(**content: Any) -> Delivery:
    import json

    return Delivery(source="sqs", queue="ml-worker", message_id="m1", receipt="r1", body=json.dumps(content).encode())


async def done(store: Store, classifier: Classifier, **content: Any) -> Mapping[str, Any]:
    options = RollupOptions()
    handler = PlatformLabHandler(
        labs=LabRollup(store.database, classifier, options),
        others={name: TableRollup(store.database, name, options) for name in ("vitals", "nutrition")},
    )
    message = delivery(**content)
    assert handler.recognises(message)
    return (await handler.handle(handler.parse(message), RecordedContext())).result


async def test_the_tests_of_a_job_are_processed_even_where_the_platform_has_not_written_them(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90", extracted_from_document_id=12)
    await report(store, "Glucose", "70", user_id=8)
    tests = [
        {"test_name": "Glucose", "test_value": "90", "test_unit": "mg/dL"},
        # As it may be read from a document: nulls, and lists and objects where a text was expected.
        {
            "name": "Hemoglobin",
            "value": 13.5,
            "unit": "g/dL",
            "test_date": "2026-03-05T00:00:00",
            "test_name": None,
            "reference_range": {"min": 12, "max": 16},
            "test_status": ["high"],
            "lab_name": None,
        },
    ]
    asked = {"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "tests": tests, "priority": "high", "test_count": 2}

    assert (await done(store, classifier, **asked))["rows"] == 2
    assert (await done(store, classifier, **asked))["rows"] == 0, "a job that is done twice writes nothing twice"

    copies = await rows(store, "SELECT user_id, loinc_code, test_value, test_date FROM lab_report_categorized ORDER BY test_date")
    assert [tuple(row.values()) for row in copies] == [(7, GLUCOSE, "90", date(2026, 3, 2)), (7, HEMOGLOBIN, "13.5", date(2026, 3, 5))]


async def test_a_pass_is_for_its_user_alone(store: Store, classifier: Classifier) -> None:
    for user in (7, 8):
        await report(store, "Glucose", "90", user_id=user)
        await vital(store, user, "Steps", 10, "count", "2026-03-02 08:00")
        await meal(store, user, "2026-03-02", "lunch", 500)

    for kind in ("labs", "vitals", "nutrition"):
        assert await done(store, classifier, job_type=f"process_pending_{kind}", user_id=7) == {
            "job_type": f"process_pending_{kind}",
            "rows": 1,
            "failed_rows": 0,
        }

    for table in ("lab_reports_daily", "vitals_daily_aggregates", "nutrition_daily_aggregates"):
        assert [row["user_id"] for row in await rows(store, f"SELECT user_id FROM {table}")] == [7]


async def test_the_code_of_a_name_is_found_and_remembered(store: Store, classifier: Classifier) -> None:
    found = await done(store, classifier, job_type="loinc_mapping", test_name="Hemoglobin")

    assert found["loinc_code"] == HEMOGLOBIN
    [name] = await rows(store, "SELECT test_name, loinc_code, test_category FROM lab_test_mappings")
    assert tuple(name.values()) == ("hemoglobin", HEMOGLOBIN, "Complete Blood Count (CBC)")
