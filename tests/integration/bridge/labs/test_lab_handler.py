"""The lab system's work against a real gRPC server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.v1 import labs_pb2

from bridge.errors import TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Delivery, Job
from bridge.records.lab_reviews import LabReviews
from bridge.results import ResultStore
from bridge.settings import load
from bridge.store import open_store
from bridge.systems.labs.handler import LabHandler
from bridge.systems.labs.messages import request_message
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import Behaviour, ScriptedServer, answer, scripted_server


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


@pytest.fixture
async def handler(server: ScriptedServer, tmp_path: Path) -> AsyncIterator[LabHandler]:
    async with (
        InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client,
        open_store(load(database=str(tmp_path / "bridge.db"))) as store,
    ):
        yield LabHandler(client=client, results=ResultStore(str(tmp_path)), reviews=LabReviews(store.database))


def lab_job(handler: LabHandler, tests: list[dict[str, Any]]) -> Job:
    return handler.parse(
        Delivery(source="local", queue="jobs", message_id="1", receipt="1", body=request_message(key="job-1", tests=tests))
    )


def classified(test: labs_pb2.LabTest) -> labs_pb2.LabTestClassification:
    known = test.name != "Zzz"
    candidate = labs_pb2.LoincCandidate(code="718-7", long_common_name="Hemoglobin [Mass/volume] in Blood", score=0.9, reasons=["alias"])
    return labs_pb2.LabTestClassification(
        id=test.id,
        category="Complete Blood Count (CBC)" if known else "Others",
        category_confidence=0.8,
        status=labs_pb2.MATCH_STATUS_MATCHED if known else labs_pb2.MATCH_STATUS_NO_MATCH,
        candidates=[candidate],
        explanation="the name is a reviewed one" if known else "nothing fits",
    )


def classify() -> Behaviour:
    async def behave(request: labs_pb2.ClassifyLabTestsRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        yield labs_pb2.ClassifyLabTestsResponse(classifications=map(classified, request.tests), model="minilm:1", catalogue="built-in:1")

    return behave


async def test_lab_tests_get_categories_and_codes(server: ScriptedServer, handler: LabHandler, tmp_path: Path) -> None:
    server.script = [classify()]
    asked = [{"name": "Hemoglobin", "value": 13.5, "unit": "g/dL", "id": "x"}, {"name": "Zzz"}]
    outcome = await handler.handle(lab_job(handler, asked), RecordedContext(fence=2))
    first, second = outcome.result["tests"]
    assert (first["id"], first["value"], first["loinc_code"], first["status"], first["confidence"]) == (
        "x",
        "13.5",
        "718-7",
        "matched",
        0.9,
    )
    assert (first["category"], first["loinc_name"]) == ("Complete Blood Count (CBC)", "Hemoglobin [Mass/volume] in Blood")
    assert (second["id"], second["loinc_code"], second["status"], second["category"]) == ("2", None, "no_match", "Others")
    assert (outcome.result["statuses"], outcome.result["catalogue"]) == ({"matched": 1, "no_match": 1}, "built-in:1")
    kept = json.loads((tmp_path / "labs/job-1/2/labs.json").read_text())
    assert [[each["code"] for each in test["candidates"]] for test in kept["tests"]] == [["718-7"], ["718-7"]]
    assert json.loads(outcome.events[0].body)["result"]["tests"] == outcome.result["tests"]


async def test_a_long_list_goes_in_parts_and_its_event_stays_small(server: ScriptedServer, handler: LabHandler) -> None:
    server.script = [classify()]
    context = RecordedContext()
    outcome = await handler.handle(lab_job(handler, [{"name": f"Test {number}"} for number in range(1000)]), context)
    assert [len(request.tests) for request in server.requests] == [256, 256, 256, 232]
    assert [str(place) for place in range(1, 1001)] == [test["id"] for test in outcome.result["tests"]]
    assert len(outcome.events[0].body) < 10_000
    assert json.loads(outcome.events[0].body)["result"]["test_count"] == 1000
    assert context.reports[2] == (0.512, "tests 512/1000")


async def test_an_answer_that_lacks_tests_is_transient(server: ScriptedServer, handler: LabHandler) -> None:
    server.script = [answer(labs_pb2.ClassifyLabTestsResponse())]
    with pytest.raises(TransientError, match="0 of 1 lab tests"):
        await handler.handle(lab_job(handler, [{"name": "Hemoglobin"}]), RecordedContext())
