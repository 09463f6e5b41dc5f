"""Lab reports that are not as they should be, that are edited while they are worked on, or that come twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from bridge.errors import BridgeError, DeviceError, PermanentError, TransientError
from bridge.job import Delivery
from bridge.rollups.labs import LabRollup, printed_days
from bridge.rollups.passes import until_empty
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, TableRollup
from bridge.store import Store
from bridge.systems.labs.platform_handler import PlatformLabHandler
from tests.support.bridge.platform_rows import insert, lab_store, meal, report, rows, vital
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.inference_server.lab_classifier import GLUCOSE, HEMOGLOBIN, Classifier

OURS, ZIVO = "", "zivo"
DAY = date(2026, 3, 2)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier()


@pytest.fixture
async def store(new_postgres_database: Callable[[], str]) -> AsyncIterator[Store]:
    async with lab_store(new_postgres_database()) as opened:
        yield opened


async def rolled(store: Store, classifier: Classifier, *, compat: str = OURS) -> Rolled:
    return await until_empty([LabRollup(store.database, classifier, RollupOptions(compat=compat))], stop=asyncio.Event())


async def done(store: Store, classifier: Classifier, **content: Any) -> Mapping[str, Any]:
    options = RollupOptions()
    handler = PlatformLabHandler(
        labs=LabRollup(store.database, classifier, options),
        others={name: TableRollup(store.database, name, options) for name in ("vitals", "nutrition")},
    )
    message = Delivery(source="sqs", queue="ml-worker", message_id="m1", receipt="r1", body=json.dumps(content).encode())
    return (await handler.handle(handler.parse(message), RecordedContext())).result


@pytest.mark.parametrize("compat", [OURS, ZIVO])
async def test_a_name_that_people_wrote_in_capitals_is_that_name(store: Store, classifier: Classifier, compat: str) -> None:
    known = {"test_name": "Random Blood Sugar", "test_name_standardized": "Glucose, random", "test_code": "RBS"}
    await insert(store, "lab_test_mappings", **known, test_category="Diabetes Panel", loinc_code=GLUCOSE, loinc_source="LOINC")
    await report(store, "RANDOM blood sugar", "90", test_category="Sugar")
    await rolled(store, classifier, compat=compat)

    [copy] = await rows(store, "SELECT test_name, test_code, loinc_code, inferred_test_category FROM lab_report_categorized")
    assert tuple(copy.values()) == ("Glucose, random", "RBS", GLUCOSE, "Diabetes Panel")
    names = await rows(store, "SELECT test_name, gpt_suggested_category FROM lab_test_mappings")
    assert [tuple(row.values()) for row in names] == [("Random Blood Sugar", "Sugar")]


async def test_a_report_that_is_edited_while_it_is_read_is_read_again(store: Store, classifier: Classifier) -> None:
    class Editing(Classifier):
        async def classify_lab_tests(self, *arguments: Any, **more: Any) -> Any:
            found = await super().classify_lab_tests(*arguments, **more)
            await store.database.change(text("UPDATE lab_reports SET test_value = '120' WHERE test_value = '90'"))
            return found

    await report(store, "Glucose", "90")
    await rolled(store, Editing())

    [day] = await rows(store, "SELECT avg_value, count FROM lab_reports_daily")
    assert tuple(day.values()) == ("120", 1)


async def test_of_two_equal_reports_one_may_be_deleted(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90")
    await report(store, "Glucose", "90")
    await rolled(store, classifier)
    await store.database.change(text("DELETE FROM lab_reports WHERE id = (SELECT max(id) FROM lab_reports)"))

    await LabRollup(store.database, classifier, RollupOptions()).recompute(7, DAY, DAY)

    [day] = await rows(store, "SELECT avg_value, count FROM lab_reports_daily")
    assert tuple(day.values()) == ("90", 1)


async def test_a_unit_that_is_not_told_is_the_same_however_it_is_not_told(store: Store, classifier: Classifier) -> None:
    await report(store, "Hemoglobin", "13", unit=None)
    await report(store, "Hemoglobin", "15", unit="")
    await report(store, "Hemoglobin", "17", unit=" ")
    await rolled(store, classifier)

    [day] = await rows(store, "SELECT avg_value, count FROM lab_reports_daily")
    assert tuple(day.values()) == ("15", 3)


async def test_small_values_are_not_rounded_away(store: Store, classifier: Classifier) -> None:
    await report(store, "Hemoglobin", "0.0000123", unit="kg/L")
    await rolled(store, classifier)

    for level in ("daily", "monthly", "quarterly", "yearly"):
        [bucket] = await rows(store, f"SELECT avg_value, min_value, max_value FROM lab_reports_{level}")
        assert set(bucket.values()) == {"0.0000123"}


@pytest.mark.parametrize(
    ("told", "day"),
    [
        ({"test_date": "2026-03-05T08:00:00+05:30"}, date(2026, 3, 5)),
        ({"test_date": "05/03/2026"}, date(2026, 3, 5)),
        ({"test_date": "5-Mar-2026"}, date(2026, 3, 5)),
        ({"test_date": "5 March 2026"}, date(2026, 3, 5)),
        ({"test_date": "2026/03/05"}, date(2026, 3, 5)),
        ({"test_date": "Sept 5, 2025", "report_date": "05/03/26"}, date(2025, 9, 5)),
        ({"test_date": "2024-02-30", "report_date": "2024-02-29"}, date(2024, 2, 29)),
        ({"report_date": "2026-03-06"}, date(2026, 3, 6)),
        # As the document's other report has it.
        ({}, DAY),
    ],
)
async def test_a_test_of_a_job_is_of_the_day_that_it_tells(store: Store, classifier: Classifier, told: dict[str, str], day: date) -> None:
    await report(store, "Glucose", "90", extracted_from_document_id=12)
    tests = [{"test_name": "Hemoglobin", "test_value": "13.5", "test_unit": "g/dL", **told}]
    await done(store, classifier, job_type="lab_categorization", user_id=7, document_id=12, tests=tests)

    found = await rows(store, "SELECT test_date FROM lab_report_categorized WHERE loinc_code = :code", code=HEMOGLOBIN)
    assert [row["test_date"] for row in found] == [day]


@pytest.mark.parametrize(
    ("told", "day", "ambiguous"),
    [
        # With the year last the day would be one of 21 years ago.
        ("26/03/05", date(2026, 3, 5), ["2026-03-05", "2005-03-26"]),
        ("20/03/21", date(2021, 3, 20), ["2021-03-20", "2020-03-21"]),
        ("05/03/26", date(2026, 3, 5), ["2026-03-05", "2026-05-03"]),
        # The fourth of December has not come.
        ("04/12/2026", date(2026, 4, 12), None),
    ],
)
async def test_a_day_that_can_be_read_in_several_ways_is_the_likely_one_and_what_is_doubtful_is_told(
    store: Store, classifier: Classifier, told: str, day: date, ambiguous: list[str] | None
) -> None:
    tests = [{"test_name": "Hemoglobin", "test_value": "13.5", "test_unit": "g/dL", "test_date": told}]
    asked = {"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "submitted_at": "2026-05-20T08:00:00.123456"}

    result = await done(store, classifier, **asked, tests=tests)

    assert [day] == [row["test_date"] for row in await rows(store, "SELECT test_date FROM lab_report_categorized")]
    assert ({told: ambiguous} if ambiguous else None) == result.get("ambiguous_dates")


@pytest.mark.parametrize(
    "submitted", ["0001-01-01T00:00:00", "1970-01-01T00:00:00", "9999-12-31T23:59:59.9999999", "soon", 1779264000, None]
)
async def test_a_job_that_was_asked_for_at_no_time_that_can_be_is_done_as_one_of_today(
    store: Store, classifier: Classifier, submitted: object
) -> None:
    tests = [{"test_name": "Hemoglobin", "test_value": "13.5", "test_unit": "g/dL", "test_date": "25/03/26"}]

    await done(store, classifier, job_type="lab_categorization", user_id=7, document_id=12, submitted_at=submitted, tests=tests)

    assert [date(2026, 3, 25)] == [row["test_date"] for row in await rows(store, "SELECT test_date FROM lab_report_categorized")]


async def test_a_job_that_is_done_twice_writes_nothing_twice_whatever_its_texts(store: Store, classifier: Classifier) -> None:
    tests = [
        {"test_name": "ÄPFELSÄURE İM BLUT", "test_value": "  7 ", "test_unit": "mg/dL"},
        {"test_name": "N" * 300, "test_value": "v" * 150},
        {"test_name": "Cultures\x00", "test_value": "none\x00 seen"},
        {"test_name": "Half a pair \ud83d", "test_value": "\udcaa"},
    ]
    asked = {"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "tests": tests}
    await done(store, classifier, **asked)
    await done(store, classifier, **asked)

    assert len(await rows(store, "SELECT 1 FROM lab_reports")) == 4


async def test_tests_that_the_platform_wrote_without_their_document_are_not_written_again(store: Store, classifier: Classifier) -> None:
    await report(store, "Hemoglobin", "13.5", unit="g/dL")
    await report(store, "Glucose", "90", day="2026-03-01")
    tests = [{"test_name": "hemoglobin", "test_value": 13.5, "test_date": "2026-03-02"}]

    asked = {"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "tests": tests}
    assert (await done(store, classifier, **asked))["rows"] == 2, "what waits beside them is taken up too"

    assert len(await rows(store, "SELECT 1 FROM lab_reports")) == 2


@pytest.mark.parametrize(
    "content",
    [
        {"user_id": 7, "document_id": None, "tests": None},
        {"user_id": "7", "tests": [{"test_name": "Hemoglobin", "test_value": "13"}]},
        {"user_id": 7, "document_id": 12, "tests": "Hemoglobin: 13"},
        {"user_id": 7, "document_id": 12, "tests": ["Hemoglobin", None, 5]},
        {"document_id": 12, "tests": [{"test_name": "Hemoglobin", "test_value": "13"}]},
        {"user_id": 7, "priority": "urgent", "test_count": "many", "unknown": {"a": 1}},
    ],
)
async def test_a_job_that_lacks_something_takes_up_what_waits(store: Store, classifier: Classifier, content: dict[str, Any]) -> None:
    await report(store, "Glucose", "90", extracted_from_document_id=12)

    assert (await done(store, classifier, job_type="lab_categorization", **content))["rows"] == 1

    assert [row["loinc_code"] for row in await rows(store, "SELECT loinc_code FROM lab_reports_daily")] == [GLUCOSE]


async def test_a_name_with_a_character_that_no_table_holds_is_learnt_without_it(store: Store, classifier: Classifier) -> None:
    await done(store, classifier, job_type="loinc_mapping", test_name="Serum\x00 X")

    assert [row["test_name"] for row in await rows(store, "SELECT test_name FROM lab_test_mappings")] == ["serum\ufffd x"]


async def test_a_job_that_is_given_up_goes_to_the_dead_letter_queue_whatever_its_texts(store: Store, classifier: Classifier) -> None:
    handler = PlatformLabHandler(labs=LabRollup(store.database, classifier, RollupOptions()), others={}, dead_queue="dead")
    body = b'{"job_type": "lab_categorization", "user_id": null, "document_id": 12, "tests": [{"test_name": "half \\ud83d"}]}'
    job = handler.parse(Delivery(source="sqs", queue="ml-worker", message_id="m1", receipt="r1", body=body))

    (event,) = handler.failure(job, "given up").events
    assert event.destination == "sqs:dead"
    assert json.loads(event.body)["tests"] == [{"test_name": "half ?"}]
    assert b", " not in event.body, "what fits into the queue is to fit here"
    assert event.attributes == {"JobType": "lab_categorization", "Priority": "normal", "Reason": "given up"}


@pytest.mark.parametrize("error", [TransientError("cannot read 91 [INTERNAL]"), PermanentError("no such text: 91 [INVALID_ARGUMENT]")])
async def test_a_report_that_the_server_fails_over_holds_no_other_up(store: Store, error: BridgeError) -> None:
    class Stumbling(Classifier):
        async def classify_lab_tests(self, tests: Any, **more: Any) -> Any:
            if any(test.name == "Stone" for test in tests):
                raise error
            return await super().classify_lab_tests(tests, **more)

    for number, name in enumerate(["Glucose", "Stone", "Hemoglobin", "Glucose", "Glucose"]):
        await report(store, name, str(90 + number))

    passing = isinstance(error, TransientError)
    assert await rolled(store, Stumbling()) == Rolled(taken=4, failed=1, postponed=int(passing))

    assert [row["count"] for row in await rows(store, "SELECT count FROM lab_reports_daily ORDER BY loinc_code")] == [3, 1]
    [failure] = await rows(store, "SELECT domain, attempts, error FROM lamina.row_failures")
    # Without what the server quotes of the result.
    reason = f"the inference server fails over it [{'INTERNAL' if passing else 'INVALID_ARGUMENT'}]"
    assert tuple(failure.values()) == ("labs", 1, reason)
    [waiting] = await rows(store, "SELECT test_name, failure_reason FROM lab_reports WHERE categorization_status = 'failed'")
    assert tuple(waiting.values()) == ("Stone", reason)


class Faulty(Classifier):
    """Fails over one name, so many times."""

    def __init__(self, error: BridgeError, *, times: int) -> None:
        super().__init__()
        self.left = [error] * times

    async def classify_lab_tests(self, tests: Any, **more: Any) -> Any:
        if self.left and any(test.name == "Glucose" for test in tests):
            raise self.left.pop()
        return await super().classify_lab_tests(tests, **more)


async def test_a_report_that_the_server_fails_over_once_is_done(store: Store) -> None:
    await report(store, "Glucose", "90")

    assert await rolled(store, Faulty(TransientError("a mistake [INTERNAL]"), times=1)) == Rolled(taken=1)


async def test_a_device_that_fails_is_blamed_on_no_report(store: Store) -> None:
    await report(store, "Glucose", "90")

    with pytest.raises(DeviceError):
        await rolled(store, Faulty(DeviceError("out of memory", cause="out_of_memory"), times=9))

    assert [row["categorization_status"] for row in await rows(store, "SELECT categorization_status FROM lab_reports")] == ["pending"]


@pytest.mark.parametrize("job_type", ["lab_categorization", "process_pending_labs"])
async def test_a_job_over_whose_report_the_server_fails_is_tried_again_with_it(store: Store, job_type: str) -> None:
    classifier = Faulty(TransientError("a mistake [INTERNAL]"), times=2)
    await report(store, "Glucose", "90")
    await report(store, "Hemoglobin", "13")

    # The halves are asked for by themselves.
    classifier.left *= 2
    with pytest.raises(TransientError, match="1 reports; 1 others"):
        await done(store, classifier, job_type=job_type, user_id=7)
    assert [row["loinc_code"] for row in await rows(store, "SELECT loinc_code FROM lab_reports_daily")] == [HEMOGLOBIN]

    classifier.left = []
    assert (await done(store, classifier, job_type=job_type, user_id=7))["rows"] == 1
    assert await rows(store, "SELECT 1 FROM lamina.row_failures") == []


async def test_however_many_jobs_come_a_report_is_parked_no_sooner_than_it_is_told(store: Store) -> None:
    classifier = Faulty(TransientError("a mistake [INTERNAL]"), times=99)
    await report(store, "Glucose", "90")

    for _ in range(3):
        with pytest.raises(TransientError):
            await done(store, classifier, job_type="process_pending_labs", user_id=7)
    for _ in range(5):
        assert (await done(store, classifier, job_type="process_pending_labs", user_id=7))["failed_rows"] == 0
    [failure] = await rows(store, "SELECT attempts, due_at IS NULL AS parked FROM lamina.row_failures")
    assert tuple(failure.values()) == (3, False)


async def test_a_job_with_a_report_that_is_parked_ends(store: Store) -> None:
    classifier = Faulty(TransientError("a mistake [INTERNAL]"), times=99)
    await report(store, "Glucose", "90")

    for _ in range(4):
        with pytest.raises(TransientError):
            await done(store, classifier, job_type="process_pending_labs", user_id=7)
        await store.database.change(text("UPDATE lamina.row_failures SET due_at = 0 WHERE due_at > 0"))
    assert (await done(store, classifier, job_type="process_pending_labs", user_id=7))["failed_rows"] == 1


async def test_a_result_with_the_letters_of_an_escape_is_taken_up(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "a\\u0000b")

    async with asyncio.timeout(20):
        assert await rolled(store, classifier) == Rolled(taken=1)

    [copy] = await rows(store, "SELECT test_value FROM lab_report_categorized")
    assert tuple(copy.values()) == ("a\\u0000b",)


async def test_a_report_that_is_edited_again_and_again_is_left_for_the_next_pass(store: Store) -> None:
    class Editing(Classifier):
        async def classify_lab_tests(self, *arguments: Any, **more: Any) -> Any:
            await store.database.change(text("UPDATE lab_reports SET test_value = test_value || '0'"))
            return await super().classify_lab_tests(*arguments, **more)

    await report(store, "Glucose", "90")

    async with asyncio.timeout(20):
        assert await rolled(store, Editing()) == Rolled()
    assert await rolled(store, Classifier()) == Rolled(taken=1)


async def test_a_server_that_fails_over_everything_is_blamed_on_no_report(store: Store) -> None:
    class Broken(Classifier):
        async def classify_lab_tests(self, *arguments: Any, **more: Any) -> Any:
            self.asked.append("asked")
            raise TransientError("server made a mistake [INTERNAL]")

    broken = Broken()
    for value in range(40):
        await report(store, "Glucose", str(value))

    with pytest.raises(TransientError):
        await rolled(store, broken)

    assert len(broken.asked) < 10
    assert {row["categorization_status"] for row in await rows(store, "SELECT categorization_status FROM lab_reports")} == {"pending"}


async def without_defaults(store: Store) -> None:
    """As tables are whose defaults are the platform's program's alone, and whose unique keys are indexes."""
    defaults = await rows(
        store,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND column_default IS NOT NULL "
        "AND column_default NOT LIKE 'nextval%'",
    )
    for row in defaults:
        await store.database.change(text(f"ALTER TABLE {row['table_name']} ALTER {row['column_name']} DROP DEFAULT"))
    for level, period in {"daily": "date", "monthly": "year, month", "quarterly": "year, quarter", "yearly": "year"}.items():
        table, key = f"lab_reports_{level}", f"user_id, {period}, test_category, loinc_code"
        await store.database.change(text(f"ALTER TABLE {table} DROP CONSTRAINT {table}_loinc_code_unique"))
        await store.database.change(text(f"CREATE UNIQUE INDEX {table}_loinc_code_unique ON {table} ({key})"))


@pytest.mark.parametrize("compat", [OURS, ZIVO])
async def test_no_table_needs_defaults_of_its_own(store: Store, classifier: Classifier, compat: str) -> None:
    await report(store, "Glucose", "90")
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    await meal(store, 7, "2026-03-02", "lunch", 500)
    await without_defaults(store)

    options = RollupOptions(compat=compat)
    labs = LabRollup(store.database, classifier, options)
    tests = [{"test_name": "Hemoglobin", "test_value": "13"}]
    await labs.roll_document(7, 12, tests, days=printed_days(tests, known_on=DAY))
    await labs.map_name("Ferritin", request_id="1")
    others = [TableRollup(store.database, name, options) for name in ("vitals", "nutrition")]
    assert await until_empty([labs, *others], stop=asyncio.Event()) == Rolled(taken=3)

    for table in ("lab_reports_yearly", "vitals_monthly_aggregates", "nutrition_monthly_aggregates"):
        assert await rows(store, f"SELECT 1 FROM {table}"), table
    names = await rows(store, "SELECT test_name, is_active FROM lab_test_mappings ORDER BY test_name")
    assert [tuple(row.values()) for row in names] == [("ferritin", True), ("glucose", True), ("hemoglobin", True)]


async def test_a_pass_without_a_user_is_for_all(store: Store, classifier: Classifier) -> None:
    for user in (7, 8):
        await vital(store, user, "Steps", 10, "count", "2026-03-02 08:00")

    assert (await done(store, classifier, job_type="process_pending_vitals"))["rows"] == 2


async def test_a_job_waits_for_another_worker_that_is_at_its_users_rows(store: Store, classifier: Classifier) -> None:
    await report(store, "Glucose", "90")
    async with await psycopg.AsyncConnection.connect(store.settings.database) as other:
        await other.execute("SELECT pg_advisory_lock(hashtext('lamina labs'), 7)")
        job = asyncio.create_task(done(store, classifier, job_type="process_pending_labs", user_id=7))
        await asyncio.sleep(6)
        assert not job.done()

    assert (await job)["rows"] == 1


async def test_dates_of_one_document_have_one_order(store: Store, classifier: Classifier) -> None:
    tests = [{"test_name": "Hemoglobin", "test_value": "13", "test_date": day} for day in ("03/05/2026", "03/25/2026")]
    await done(store, classifier, job_type="lab_categorization", user_id=7, document_id=12, tests=tests)

    found = await rows(store, "SELECT test_date FROM lab_reports ORDER BY test_date")
    assert [row["test_date"] for row in found] == [date(2026, 3, 5), date(2026, 3, 25)]
