"""The lab system's work: categories and LOINC codes for a list of tests."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bridge.inference.client import InferenceClient
from bridge.inference.labs import LabClassification, LabClassifications, LabTest
from bridge.job import Delivery, Job, Outcome
from bridge.records.lab_reviews import LabReviews
from bridge.results import ResultFolder, ResultStore
from bridge.systems import native
from bridge.systems.labs import messages
from bridge.systems.port import Context

# Tests of one call: large enough for full batches, small enough that progress is told.
_TESTS_A_CALL = 256


class LabHandler:
    """Has lab tests classified, and keeps what was found under `labs/{job key}/{fence}/labs.json`.

    Names whose code is not believed wait for a person then.
    """

    def __init__(self, *, client: InferenceClient, results: ResultStore, reviews: LabReviews) -> None:
        self._client = client
        self._reviews = reviews
        self._results = results

    @property
    def system(self) -> str:
        """Its name."""
        return messages.SYSTEM

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        return messages.job_of(delivery.body)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Classify the tests. Raises `TransientError`, `OverloadError`, `PermanentError`, `ConfigurationError`."""
        request = messages.request_of(job)
        tests = [_lab_test(place, test) for place, test in enumerate(request.tests, start=1)]
        answers: list[LabClassifications] = []
        for start in range(0, len(tests), _TESTS_A_CALL):
            context.report(start / len(tests), f"tests {start}/{len(tests)}")
            part = tests[start : start + _TESTS_A_CALL]
            answers.append(await self._client.classify_lab_tests(part, request_id=job.key, top_k=request.top_k))
        folder = self._results.folder("labs", job.key, context.claim.fence)
        completed = native.completed(job, await _written(tests, answers, folder), bulky=("tests",))
        found = [one for answer in answers for one in answer.tests]
        return replace(completed, writes=self._reviews.noted(tests, found, catalogue=answers[0].catalogue))

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a list that is given up."""
        return native.failed(job, error="the lab tests could not be classified", reason=reason)


def _lab_test(place: int, test: messages.LabTestRequest) -> LabTest:
    return LabTest(
        id=test.id or str(place),
        name=test.name,
        value=test.value,
        unit=test.unit,
        specimen=test.specimen,
        reference_range=test.reference_range,
    )


async def _written(tests: list[LabTest], answers: list[LabClassifications], folder: ResultFolder) -> Mapping[str, Any]:
    found = [one for answer in answers for one in answer.tests]
    rows = [_row(test, one) for test, one in zip(tests, found, strict=True)]
    whole = [{**row, "candidates": [_rounded(asdict(each)) for each in one.candidates]} for row, one in zip(rows, found, strict=True)]
    facts = {
        "test_count": len(rows),
        "statuses": dict(Counter(row["status"] for row in rows)),
        "model": answers[0].model,
        "catalogue": answers[0].catalogue,
    }
    content = await asyncio.to_thread(json.dumps, {**facts, "tests": whole}, ensure_ascii=False, indent=1)
    uri = await folder.write("labs.json", content.encode())
    artifact = {"name": "labs.json", "media_type": "application/json", "uri": uri, "size_bytes": len(content.encode())}
    return {**facts, "tests": rows, "location": folder.location, "artifacts": [artifact]}


def _row(test: LabTest, found: LabClassification) -> dict[str, Any]:
    # Without a match the candidates are a reviewer's business; no code is claimed.
    best = found.candidates[0] if found.candidates and found.status != "no_match" else None
    return {
        "id": test.id,
        "name": test.name,
        "value": test.value,
        "unit": test.unit,
        "category": found.category,
        "category_confidence": round(found.category_confidence, 4),
        "status": str(found.status),
        "loinc_code": best.code if best else None,
        "loinc_name": best.long_common_name if best else None,
        "confidence": round(best.score, 4) if best else 0.0,
        "explanation": found.explanation,
    }


def _rounded(candidate: dict[str, Any]) -> dict[str, Any]:
    return {**candidate, "score": round(candidate["score"], 4)}
