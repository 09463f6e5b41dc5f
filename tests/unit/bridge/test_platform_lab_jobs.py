"""The platform's jobs over SQS as the bridge reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bridge.errors import PoisonError
from bridge.job import Delivery
from bridge.systems.labs import platform_messages


def _delivery(content: object, attributes: Mapping[str, str] | None = None, *, receipt: str = "r1") -> Delivery:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Delivery(source="sqs", queue="ml-worker", message_id="m1", receipt=receipt, body=body, attributes=attributes or {})


def test_the_tests_of_a_categorisation_job_are_kept() -> None:
    tests = [{"test_name": "Hemoglobin", "test_value": "13.5"}]
    content = {"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "tests": tests, "test_count": 1, "priority": "high"}
    request = platform_messages.request_of(platform_messages.job_of(_delivery(content)))
    assert isinstance(request, platform_messages.LabCategorization)
    assert (request.user_id, request.document_id, list(request.tests)) == (7, 12, tests)


@pytest.mark.parametrize("job_type", ["process_pending_labs", "process_pending_vitals", "process_pending_nutrition"])
def test_a_pass_names_its_user_even_where_only_the_attributes_do(job_type: str) -> None:
    delivery = _delivery({}, {"JobType": job_type, "UserId": "7", "Priority": "low"})
    assert platform_messages.is_platform_job(delivery)
    request = platform_messages.request_of(platform_messages.job_of(delivery))
    assert isinstance(request, platform_messages.PendingPass)
    assert (request.job_type, request.user_id, request.priority) == (job_type, 7, "low")


def test_null_in_the_body_is_as_good_as_left_out() -> None:
    delivery = _delivery({"job_type": None, "user_id": None, "priority": None}, {"JobType": "process_pending_labs", "UserId": "7"})
    request = platform_messages.request_of(platform_messages.job_of(delivery))
    assert isinstance(request, platform_messages.PendingPass)
    assert (request.user_id, request.priority) == (7, "normal")

    listed = platform_messages.job_of(_delivery({"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "tests": None}))
    assert listed.request["tests"] == []


def test_a_name_to_map_needs_no_user() -> None:
    request = platform_messages.request_of(platform_messages.job_of(_delivery({"job_type": "loinc_mapping", "test_name": " Hemoglobin "})))
    assert isinstance(request, platform_messages.LoincMapping)
    assert request.test_name == "Hemoglobin"


def test_urgent_jobs_go_before_normal_ones_and_those_before_the_rest() -> None:
    def place(priority: Any) -> int:
        content = {"job_type": "process_pending_labs", "user_id": 7, "priority": priority}
        return platform_messages.job_of(_delivery(content)).priority

    assert place("high") == place(" HIGH ") < place("normal") == place(None) < place("low")
    assert place("normal") == place("urgent") == place(5) == place([]), "what the old worker never read refuses no job"


def test_a_message_that_is_delivered_again_is_the_same_job() -> None:
    content = {"job_type": "process_pending_labs", "user_id": 7}
    assert platform_messages.job_of(_delivery(content)).key == platform_messages.job_of(_delivery(content, receipt="r2")).key


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "not a JSON object"),
        ({"job_type": "train"}, "'train'; expected one of lab_categorization, loinc_mapping"),
        ({"job_type": ["train"]}, "expected one of"),
        ({"job_type": "process_pending_labs", "user_id": "Eve"}, "user_id"),
        ({"job_type": "loinc_mapping", "test_name": ""}, "test_name"),
    ],
)
def test_a_broken_job_is_refused_with_what_was_expected(content: object, told: str) -> None:
    delivery = _delivery(content, {"JobType": "broken"} if isinstance(content, bytes) else {})
    assert platform_messages.is_platform_job(delivery)
    with pytest.raises(PoisonError, match=told):
        platform_messages.job_of(delivery)


def test_a_message_in_our_own_envelope_is_left_to_its_own_system() -> None:
    assert not platform_messages.is_platform_job(_delivery({"system": "labs", "key": "k", "request": {"tests": []}}))
