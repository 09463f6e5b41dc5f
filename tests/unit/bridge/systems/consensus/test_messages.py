"""The pipeline's job messages, right and wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.errors import PoisonError
from bridge.job import Delivery
from bridge.systems.consensus import messages

RUN = "3f1c7a52-5f0e-4c7b-9a51-0f4f5f9b7f11"
SOUND: dict[str, Any] = {"run_id": RUN, "run_type": "initial", "priority": "normal", "payload": {"idea": "An idea", "extra_context": None}}


def delivery(content: Any, **attributes: str) -> Delivery:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Delivery(source="pubsub", queue="jobs", message_id="1", receipt="1", body=body, attributes=attributes)


def test_a_message_names_its_run_and_brings_what_a_revision_changes() -> None:
    payload = {"parent_run_id": RUN, "input_idea": "An idea", "edited_proposal": {"title": "New"}, "edit_notes": "Shorter"}
    job = messages.job_of(delivery({**SOUND, "run_type": "revision", "priority": "high", "payload": payload, "more": 1}))

    assert (job.key, job.system) == (RUN, "consensus")
    assert job.priority < 0
    assert job.request["edited_proposal"] == {"title": "New"}
    assert job.request["edit_notes"] == "Shorter"


def test_an_id_in_any_form_is_one_key() -> None:
    assert messages.job_of(delivery({**SOUND, "run_id": f"{{{RUN.upper()}}}"})).key == RUN


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({**SOUND, "run_id": "7"}, "run_id"),
        ({name: value for name, value in SOUND.items() if name != "payload"}, "payload"),
        ({**SOUND, "payload": "An idea"}, "payload"),
        ({**SOUND, "priority": 1}, "priority"),
        (b"[]", "consensus"),
        (b"{", "consensus"),
    ],
)
def test_a_broken_message_is_poison_that_names_what_is_wrong(content: Any, named: str) -> None:
    with pytest.raises(PoisonError, match=named):
        messages.job_of(delivery(content))


def test_messages_of_the_pipeline_are_told_from_others() -> None:
    assert messages.is_request(delivery(SOUND))
    assert messages.is_request(delivery({"run_id": "broken", "run_type": "initial"}))
    assert messages.is_request(delivery({}, run_id=RUN, run_type="initial"))
    assert not messages.is_request(delivery({"job_key": "a", "system": "labs"}))
    assert not messages.is_request(delivery(b"not json"))


def test_what_is_sent_can_be_read() -> None:
    body = messages.message_of(run_id=RUN, run_type="initial", priority="high", payload={"idea": "Ä"})

    assert messages.job_of(delivery(body)).key == RUN
