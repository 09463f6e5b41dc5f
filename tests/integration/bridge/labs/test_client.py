"""Jobs that the Python client sends, as they lie in a real queue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from bridge.aws.access import AwsAccess
from bridge.client import JobClient
from bridge.errors import ConfigurationError, PermanentError, PoisonError
from tests.support.servers.ministack import Ministack

_DOCUMENTATION = Path(__file__).parents[4] / "docs" / "labs.md"
_TESTS = [{"name": "Hemoglobin", "value": "13.5", "unit": "g/dL"}, {"name": "Gula Darah Puasa", "value": "105"}]


@pytest.fixture
def sqs(ministack: Ministack) -> Iterator[Any]:
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    client = session.client("sqs", endpoint_url=ministack.endpoint)
    yield client
    client.close()


@pytest.fixture
def queue_url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName=f"q-{uuid4().hex[:12]}")["QueueUrl"])


@pytest.fixture
def client(ministack: Ministack, queue_url: str) -> Iterator[JobClient]:
    with JobClient(queue_url, access=AwsAccess(endpoint=ministack.endpoint)) as client:
        yield client


def _only_message(sqs: Any, queue_url: str) -> dict[str, Any]:
    answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=5, MessageAttributeNames=["All"])
    (message,) = answer["Messages"]
    return dict(message)


def test_a_categorisation_job_lies_in_the_queue_with_its_fields_its_attributes_and_the_id_that_was_returned(
    client: JobClient, sqs: Any, queue_url: str
) -> None:
    message_id = client.send_lab_categorization_job(user_id=7, document_id=12, tests=_TESTS, priority="high")
    message = _only_message(sqs, queue_url)
    body = json.loads(message["Body"])
    submitted = datetime.fromisoformat(body.pop("submitted_at"))
    assert message["MessageId"] == message_id
    assert body == {
        "job_type": "lab_categorization",
        "user_id": 7,
        "document_id": 12,
        "tests": _TESTS,
        "test_count": 2,
        "priority": "high",
    }
    assert submitted.tzinfo is None
    assert abs(datetime.now(tz=UTC).replace(tzinfo=None) - submitted) < timedelta(hours=1)
    kinds = {name: (value["DataType"], value["StringValue"]) for name, value in message["MessageAttributes"].items()}
    assert kinds == {"JobType": ("String", "lab_categorization"), "Priority": ("String", "high"), "UserId": ("Number", "7")}


def test_urgent_jobs_go_to_a_queue_of_their_own_where_there_is_one(ministack: Ministack, sqs: Any, queue_url: str) -> None:
    urgent = str(sqs.create_queue(QueueName=f"q-{uuid4().hex[:12]}")["QueueUrl"])
    with JobClient(queue_url, urgent_queue_url=urgent, access=AwsAccess(endpoint=ministack.endpoint)) as client:
        sent = {priority: client.send_pending_labs_job(user_id=7, priority=priority) for priority in ("high", "normal")}
    assert [sent["high"], sent["normal"]] == [_only_message(sqs, url)["MessageId"] for url in (urgent, queue_url)]


@pytest.mark.parametrize("domain", ["labs", "vitals", "nutrition"])
def test_a_pass_over_what_waits_names_its_user_and_has_normal_priority_unless_told(
    client: JobClient, sqs: Any, queue_url: str, domain: str
) -> None:
    getattr(client, f"send_pending_{domain}_job")(user_id=7)
    message = _only_message(sqs, queue_url)
    body = json.loads(message["Body"])
    assert body.keys() == {"job_type", "user_id", "priority", "submitted_at"}
    assert (body["job_type"], body["user_id"], body["priority"]) == (f"process_pending_{domain}", 7, "normal")
    assert message["MessageAttributes"]["UserId"]["DataType"] == "Number"
    assert message["MessageAttributes"]["JobType"]["StringValue"] == f"process_pending_{domain}"


def test_a_job_for_one_name_names_no_user(client: JobClient, sqs: Any, queue_url: str) -> None:
    client.send_loinc_mapping_job(test_name="Hemoglobin", priority="low")
    message = _only_message(sqs, queue_url)
    body = json.loads(message["Body"])
    assert body.keys() == {"job_type", "test_name", "priority", "submitted_at"}
    assert body["test_name"] == "Hemoglobin"
    assert message["MessageAttributes"].keys() == {"JobType", "Priority"}


def test_a_job_that_cannot_be_sent_is_refused_with_what_was_expected_and_sends_nothing(client: JobClient, sqs: Any, queue_url: str) -> None:
    with pytest.raises(PoisonError, match="'urgent'; expected one of high, normal, low"):
        client.send_pending_labs_job(user_id=7, priority="urgent")  # type: ignore[arg-type]
    with pytest.raises(PoisonError, match="expected text, numbers"):
        client.send_lab_categorization_job(user_id=7, document_id=12, tests=[{"name": object()}])
    with pytest.raises(PoisonError, match="test_name is empty"):
        client.send_loinc_mapping_job(test_name=" ")
    assert "Messages" not in sqs.receive_message(QueueUrl=queue_url)


def test_a_queue_that_is_not_there_is_told_apart_from_a_passing_fault(ministack: Ministack, queue_url: str) -> None:
    access = AwsAccess(endpoint=ministack.endpoint)
    with JobClient(f"{queue_url}-missing", access=access) as client, pytest.raises((ConfigurationError, PermanentError)):
        client.send_pending_labs_job(user_id=7)


def test_the_documented_example_sends_its_job(ministack: Ministack, sqs: Any, queue_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?JobClient.*?)```", _DOCUMENTATION.read_text(), flags=re.DOTALL)
    example = re.sub(r'queue_url = ".*?"', f'queue_url = "{queue_url}"', example)
    example = re.sub(r'endpoint=".*?"', f'endpoint="{ministack.endpoint}"', example)
    exec(compile(example, "labs.md", "exec"), {})
    assert capsys.readouterr().out.strip() == _only_message(sqs, queue_url)["MessageId"]
