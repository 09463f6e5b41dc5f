"""What is shown of a job to those whom nobody has asked who they are."""

from __future__ import annotations

import json
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest

import bridge.systems
from bridge.ledger.facts import SHOWN_IN_PART, SHOWN_WHOLE, impersonal_facts, job_facts
from bridge.ledger.port import JobRecord, State
from bridge.systems.wsi import messages as slides
from bridge.systems.wsi import platform_messages

PERSONAL = "BUDI SANTOSO 3273010203850001"


def record(system: str, request: dict[str, Any], result: dict[str, Any] | None) -> JobRecord:
    return JobRecord(
        key="one",
        system=system,
        state=State.SUCCEEDED,
        fence=1,
        attempts=0,
        request=request,
        result=result,
        last_error="",
        progress=1.0,
        stage="",
        created_at=0.0,
        started_at=1.0,
        finished_at=2.0,
    )


CARD = {
    "documentId": "d",
    "score": 90,
    "decision": "auto_approve",
    "outcome": "auto_approved",
    "ticket": "t",
    "models": ["rec:1@tensorrt:float16"],
}
DOCUMENT = {"page_count": 2, "word_count": 7, "artifacts": [{"name": "document.json", "uri": "s3://bucket/document.json"}]}


@pytest.mark.parametrize(
    ("system", "request_", "result", "shown"),
    [
        ("cards", {"documentId": "d"}, {**CARD, "parsedResult": {"name": PERSONAL}, "fields": {"nik": {"value": PERSONAL}}}, CARD),
        ("documents", {"document_uri": "a.pdf"}, {**DOCUMENT, "first_lines": [PERSONAL]}, DOCUMENT),
        ("labs", {"tests": [{"name": "Hb", "value": PERSONAL}]}, {"test_count": 1, "tests": [{"value": PERSONAL}]}, {"test_count": 1}),
        ("lab-jobs", {"job_type": "loinc_mapping", "test_name": PERSONAL}, {"rows": 3, "test_name": PERSONAL}, {"rows": 3}),
        ("consensus", {"run_id": "r", "edit_notes": PERSONAL}, {"status": "completed", "draft": PERSONAL}, {"status": "completed"}),
    ],
)
def test_what_tells_of_people_is_left_out(system: str, request_: dict[str, Any], result: dict[str, Any], shown: dict[str, Any]) -> None:
    facts = impersonal_facts(record(system, request_, result))
    assert shown == facts["result"]
    assert PERSONAL not in json.dumps(facts)
    assert PERSONAL in json.dumps(job_facts(record(system, request_, result))), "those who may read the ledger are told all"


@pytest.mark.parametrize("system", [slides.SYSTEM, platform_messages.SYSTEM])
def test_slides_are_shown_whole(system: str) -> None:
    slide = record(system, {"slide_uri": "a.svs"}, {"summary": {"tissue_share": 0.5}})
    assert job_facts(slide) == impersonal_facts(slide)


def test_of_a_system_that_nobody_has_looked_at_nothing_is_shown() -> None:
    facts = impersonal_facts(record("new", {"note": PERSONAL}, {"error": PERSONAL, "text": PERSONAL}))
    assert ({}, {}) == (facts["request"], facts["result"])
    assert "succeeded" == facts["state"]


def test_jobs_without_a_result_have_none() -> None:
    assert impersonal_facts(record("cards", {}, None))["result"] is None


def test_somebody_has_looked_at_every_system_that_is_served() -> None:
    modules = (import_module(found.name) for found in walk_packages(bridge.systems.__path__, "bridge.systems."))
    served = {module.SYSTEM for module in modules if hasattr(module, "SYSTEM")}
    assert {slides.SYSTEM, "cards", "consensus"} < served, "the search finds them"
    assert served == SHOWN_WHOLE | SHOWN_IN_PART.keys()
    assert not SHOWN_WHOLE & SHOWN_IN_PART.keys()
