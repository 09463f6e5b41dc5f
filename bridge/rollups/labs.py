"""The rollup of lab reports: the inference server tells category and code, the report is copied with them, its buckets computed anew."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Protocol

from bridge.database.port import Database
from bridge.database.text import json_text
from bridge.errors import BridgeError, DeviceError, PermanentError, TransientError
from bridge.inference.labs import LabClassification, LabClassifications, LabTest, MatchStatus
from bridge.records.lab_reviews import LabReviews
from bridge.rollups.days import PrintedDays
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, RollupTables

# Tests of one call and of one transaction.
_BATCH = 100
_UNKNOWN = "UNKNOWN"
_NO_NAME, _NO_VALUE = "Missing test_name", "Missing test_value"
_KNOWN = LabTest(id="1", name="Hemoglobin")
_TEST_DATE = ("test_date", "date")
# So often is a batch read anew that was edited meanwhile.
_MOST_READINGS = 3
# At the end of what the server says; the rest may quote a result.
_STATUS = re.compile(r"\[[A-Z_]+\]$")
# Rows of the platform's.
_Reports = Sequence[Mapping[str, Any]]


class LabClassifier(Protocol):
    """What tells what a test is."""

    async def classify_lab_tests(self, tests: Sequence[LabTest], *, request_id: str, top_k: int = 0) -> LabClassifications:
        """Give each test its category and LOINC candidates, in the order of the tests. Raises `TransientError`, `OverloadError`."""


class LabRollup:
    """Takes lab reports up; names whose code is not believed wait for a person."""

    def __init__(self, database: Database, classifier: LabClassifier, options: RollupOptions) -> None:
        """Raises `ConfigurationError` for a database that cannot hold a platform's tables."""
        self._tables = RollupTables(database, "labs", options)
        self._classifier = classifier
        self._reviews = LabReviews(database)
        self._compat = options.compat

    @property
    def name(self) -> str:
        """For people."""
        return self._tables.name

    async def users(self, *, failed: bool = False) -> Sequence[int]:
        """Whose rows wait, the longest waiting first. `failed`: whose rows have failed and are due alone. Raises `TransientError`."""
        return await self._tables.users(failed=failed)

    async def roll(self, user: int) -> Rolled:
        """Take up one batch of a user's reports. Raises `TransientError`, `OverloadError`."""
        return await self._roll(user, document=None)

    async def roll_document(self, user: int, document: int, tests: Sequence[Mapping[str, Any]], *, days: PrintedDays) -> Rolled:
        """Take up the reports of one document; tests that have no row yet get one first. `days`: those of the tests.

        Raises `TransientError`, `OverloadError`.
        """
        if told := [_columns(test, days) for test in tests]:
            await self._tables.write("report", user=user, document=document, tests=json_text(told))
        whole = Rolled()
        while (found := await self._roll(user, document=document)) != Rolled():
            whole += found
        return whole

    async def hasten(self, user: int | None) -> None:
        """Have the reports of a user, or of all, that failed once or twice tried at once. Raises `TransientError`."""
        await self._tables.write("hasten", user=user)

    async def map_name(self, name: str, *, request_id: str) -> Mapping[str, Any]:
        """Have the code of a name found, and remembered. Raises `TransientError`, `OverloadError`."""
        test = LabTest(id="1", name=name)
        answer = await self._classifier.classify_lab_tests([test], request_id=request_id)
        found = answer.tests[0]
        code = _code(found)
        await self._reviews.note([test], [found], catalogue=answer.catalogue)
        await self._tables.write("learn", name=name, code=platform_code(name), category=found.category, loinc=code)
        return {"test_name": name, "loinc_code": code, "category": found.category, "status": str(found.status)}

    async def recompute(self, user: int, since: date, until: date) -> None:
        """Compute all buckets of a user's days anew; what was deleted since is no longer counted.

        Raises `TransientError`, `OverloadError`.
        """
        await self._tables.recompute(user, since, until)
        while await self.roll(user) != Rolled():
            pass  # reports whose equal was deleted have no copy yet

    async def _roll(self, user: int, *, document: int | None) -> Rolled:
        found = Rolled()
        for _ in range(_MOST_READINGS):
            rows = await self._tables.look("waiting", user=user, limit=_BATCH, document=document)
            if not rows or (found := await self._classified(user, rows)) != Rolled():
                break
        return found

    async def _classified(self, user: int, rows: Sequence[Mapping[str, Any]]) -> Rolled:
        asked = [row for row in rows if row["test_name"].strip() and (row["test_value"] or "").strip()]
        parts, refused = await self._ask(user, asked) if asked else ([], Rolled())
        answers: dict[int, LabClassification] = {}
        for part, found in parts:
            await self._note(part, found)
            answers |= {row["id"]: answer for row, answer in zip(part, found.tests, strict=True)}
        unanswered = {row["id"] for row in asked} - answers.keys()
        told = [self._told(row, answers.get(row["id"])) for row in rows if row["id"] not in unanswered]
        return refused + (await self._take(user, told) if told else Rolled())

    async def _ask(self, user: int, rows: _Reports) -> tuple[list[tuple[_Reports, LabClassifications]], Rolled]:
        """What the server says of reports, part by part; one that it fails over holds no other up.

        Raises as `roll` does; `PermanentError` where it does no lab reports at all.
        """
        request = f"labs/{user}"
        try:
            return [(rows, await self._classifier.classify_lab_tests([_test(row) for row in rows], request_id=request))], Rolled()
        except DeviceError:
            raise
        except (TransientError, PermanentError):
            if len(rows) > 1:
                half = len(rows) // 2
                (first, some), (second, others) = await self._ask(user, rows[:half]), await self._ask(user, rows[half:])
                return first + second, some + others
        # Where the server fails over what it knows as well, or did so but once, the report is not to blame.
        await self._classifier.classify_lab_tests([_KNOWN], request_id=request)
        try:
            return [(rows, await self._classifier.classify_lab_tests([_test(rows[0])], request_id=request))], Rolled()
        except DeviceError:
            raise
        except (TransientError, PermanentError) as error:
            return [], await self._tables.fail(rows[0]["id"], _blame(error), passing=isinstance(error, TransientError))

    async def _note(self, rows: _Reports, found: LabClassifications) -> None:
        """What people have written a code for needs no review."""
        unknown = [(_test(row), one) for row, one in zip(rows, found.tests, strict=True) if not row["known_loinc"]]
        await self._reviews.note([test for test, _ in unknown], [one for _, one in unknown], catalogue=found.catalogue)

    async def _take(self, user: int, told: Sequence[Mapping[str, Any]]) -> Rolled:
        try:
            return await self._tables.take(user, ["take"], rows=json_text(told))
        except PermanentError as error:
            if len(told) == 1:
                return await self._tables.fail(told[0]["id"], str(error))
            half = len(told) // 2
            return await self._take(user, told[:half]) + await self._take(user, told[half:])

    def _told(self, row: Mapping[str, Any], answer: LabClassification | None) -> Mapping[str, Any]:
        """What is written about a report. What people have written about its name comes before what was found."""
        read = [row["test_name"], row["test_value"], row["test_unit"], row["reference_range"]]
        if answer is None:
            return {"id": row["id"], "read": read, "reason": _NO_VALUE if not (row["test_value"] or "").strip() else _NO_NAME}
        name = row["known_name"] or row["test_name"]
        loinc = row["known_loinc"] or _code(answer)
        reading = answer.reading
        return {
            "id": row["id"],
            "read": read,
            "reason": None,
            "name": name,
            "code": row["known_code"] or platform_code(row["test_name"]),
            "category": row["known_category"] or answer.category,
            "loinc": loinc or self._unknown(row["test_name"]),
            "matched": loinc is not None,
            "number": reading.number if reading else None,
            "unit": reading.unit if reading else "",
            "converted_number": reading.converted_number if reading else None,
            "converted_unit": reading.converted_unit if reading else "",
            "flag": reading.flag if reading else "",
        }

    def _unknown(self, name: str) -> str:
        """A code for a test without one: the tables' keys need it, and two unknown tests are not one."""
        if self._compat:
            return _UNKNOWN
        return f"{_UNKNOWN}-{hashlib.md5(name.strip().lower().encode(), usedforsecurity=False).hexdigest()[:8].upper()}"


def platform_code(name: str) -> str:
    """The platform's own code of a name: upper case, underscores, no parentheses, at most 50 characters."""
    return name.strip().upper().replace(" ", "_").replace("(", "").replace(")", "")[:50]


def _code(answer: LabClassification) -> str | None:
    return answer.candidates[0].code if answer.status is MatchStatus.MATCHED and answer.candidates else None


def _blame(error: BridgeError) -> str:
    """Why a report cannot be done, without its values."""
    status = _STATUS.search(str(error))
    return " ".join(("the inference server fails over it", *([status[0]] if status else ())))


def _test(row: Mapping[str, Any]) -> LabTest:
    return LabTest(
        id=str(row["id"]),
        name=row["test_name"],
        value=row["test_value"] or "",
        unit=row["test_unit"] or "",
        reference_range=row["reference_range"] or "",
    )


def _text(test: Mapping[str, Any], *names: str) -> str | None:
    return next((str(test[name]) for name in names if _is_told(test.get(name))), None)


def printed_days(tests: Sequence[Mapping[str, Any]], *, known_on: date) -> PrintedDays:
    """The days of a document's tests. `known_on`: when they were asked for."""
    return PrintedDays((told for test in tests for told in (_text(test, *_TEST_DATE), _text(test, "report_date"))), known_on=known_on)


def _columns(test: Mapping[str, Any], days: PrintedDays) -> dict[str, Any]:
    """A test of a message under the names of the table's columns; the platform's documents use both."""
    names = {
        "test_name": ("test_name", "name"),
        "test_value": ("test_value", "value"),
        "test_unit": ("test_unit", "unit"),
        "test_category": ("test_category", "category"),
        "reference_range": ("reference_range", "normal_range"),
        "test_status": ("test_status", "status"),
        "lab_name": ("lab_name",),
        "test_date": _TEST_DATE,
        "report_date": ("report_date",),
    }
    texts = {column: _text(test, *options) for column, options in names.items()}
    return {
        **texts,
        "test_name": texts["test_name"] or "",
        "test_date": days.iso(texts["test_date"]),
        "report_date": days.iso(texts["report_date"]),
    }


def _is_told(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""
